"""How the portal and the host are, and the metrics."""

from __future__ import annotations

import threading
import time
from typing import Any

from litestar import Request, Response
from litestar import get as open_get
from litestar.exceptions import TooManyRequestsException
from litestar.openapi.datastructures import ResponseSpec
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from mpq_supervisor import __version__
from mpq_supervisor.config import ConfigError, parse
from mpq_supervisor.portal.api.models import Health, Info, Sample, Text, Verdict
from mpq_supervisor.portal.api.routes import get, post
from mpq_supervisor.portal.metrics import samples
from mpq_supervisor.portal.parts import parts_of, who_of

_looking = threading.Lock()


@open_get("/health", tags=["system"], responses={503: ResponseSpec(Health, description="The feed is stale.")})
async def health(request: Request[Any, Any, Any]) -> Response[Health]:
    """Whether the portal hears of the supervisor; for everybody. 503 when not."""
    fresh = parts_of(request).state.fresh(time.monotonic())
    status = HTTP_200_OK if fresh else HTTP_503_SERVICE_UNAVAILABLE
    return Response(Health("ok" if fresh else "stale", __version__), status_code=status)


@get("/system/info", tags=["system"])
async def info(request: Request[Any, Any, Any]) -> Info:
    """The host, and who you are."""
    state, who = parts_of(request).state, who_of(request)
    host = state.host
    return Info(
        version=__version__,
        role=state.setup.role,
        name=state.setup.name,
        time=time.time(),
        uptime=host.uptime if host else 0.0,
        heard=host.at if host else 0.0,
        supervisor_pid=host.pid if host else 0,
        zygote_losses=host.zygote_losses if host else 0,
        sites=host.sites if host else (),
        guarded={name: int(count) for name, count in state.guarded.below("").items()},
        history_bytes=state.history_bytes,
        history_lost_seconds=state.history_lost,
        you=who.name,
        your_role=who.role.name.lower(),
    )


@get("/metrics", tags=["system"])
async def metrics(request: Request[Any, Any, Any]) -> list[Sample]:
    """All metrics as JSON; Prometheus has them at `/metrics`."""
    return [Sample(*sample) for sample in samples(parts_of(request).state, time.monotonic())]


@post("/config/validate", tags=["system"], status_code=HTTP_200_OK, sync_to_thread=True)
def validate(data: Text) -> Verdict:
    """What is wrong with a configuration; one at a time, since some take long to say."""
    if not _looking.acquire(blocking=False):
        raise TooManyRequestsException("another configuration is being looked at")
    try:
        parse(data.toml)
    except ConfigError as error:
        return Verdict(False, tuple(map(str, error.problems)))
    finally:
        _looking.release()
    return Verdict(True, ())
