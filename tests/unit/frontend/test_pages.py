from typing import Any, cast

from aetheris.api.v1 import operator_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.config import LimitSettings
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.operator_service import OperatorServicer
from tests.support.peers import FakeCatalog, FakeMatching
from tests.support.secrets import TOKENS


async def test_page_of_no_size_is_no_larger_than_one_may_ask_for() -> None:
    catalog = FakeCatalog()
    await catalog.create_namespace("id", "other", "", 3600, "request")
    servicer = OperatorServicer(
        FakeMatching(),
        catalog,
        NamespaceDirectory(catalog, SystemClock(), LimitSettings()),
        {},
        LimitSettings(page_max_size=1),
        TOKENS,
    )
    request = operator_service_pb2.ListNamespacesRequest()
    page = await servicer.ListNamespaces(request, cast(Any, None))
    assert [namespace.name for namespace in page.namespaces] == ["default"]
    assert page.next_page_token
