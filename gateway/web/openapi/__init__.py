"""`GET /openapi.json` and `GET /docs`: both planes described, from what the code knows.

`operations` says which paths there are and what each takes and answers; `bodies` and `answers` are the schemas it
refers to, in the words of `schemas`; `document` puts them together with the tree of errors; `page` shows the document
to people. A path without a row, and a row without a path, fail a test (`tests/web/test_openapi.py`).
"""
