"""The dashboard: pages made on the server, for people. `pages` is where a request comes in.

What a page shows is read from `store`, what a visitor may see is decided in `visitors`, and words, numbers and dates
come from `language`. What a form asks for, the control plane changes (`changes.ControlPlane`). Nothing here imports
`web`; `app` hands in what both need.
"""
