"""The service with every pattern hung up, as a team's own main.py does it."""

from src.main import create_app
from tests.patterns.apps import (
    authentication_and_authorization,
    authorization_others,
    caching,
    dependency_injection,
    error_handling,
    pagination,
    pagination_others,
    pagination_sqlmodel,
    response_format,
    retry,
    structured_logging,
    time_zones,
)

app = create_app()
app.include_router(authentication_and_authorization.router)
app.include_router(authorization_others.router)
app.include_router(caching.router)
app.include_router(dependency_injection.router)
app.include_router(error_handling.router)
app.include_router(pagination.router)
app.include_router(pagination_others.router)
app.include_router(pagination_sqlmodel.router, prefix="/sqlmodel")
app.include_router(response_format.router)
app.include_router(retry.router)
app.include_router(structured_logging.router, prefix="/logging")
app.include_router(time_zones.router)
