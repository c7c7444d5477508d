"""The REST API: what staff do in the console, for programs, by the same use cases.

It needs `rest_framework`, `rest_framework.authtoken` and
`drf_spectacular_sidecar` in INSTALLED_APPS, and an address:
`path("api/v1/", include("queueadmin.api.urls"))`.
"""
