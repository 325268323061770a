"""TLS to the upstream: whom we trust."""

import os
import ssl

import certifi


def verifying_context() -> ssl.SSLContext:
    """Certificate and host name are checked: against SSL_CERT_FILE or SSL_CERT_DIR where given, else as certifi says.

    As httpx does it, but without loading it: both legs trust the same. Raises OSError: a file cannot be read.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=certifi.where())
