"""Which ports processes get, and that nobody else gets the public one."""

import socket
from collections.abc import Iterator

import pytest

from aetheris_server.config import (
    ConfigError,
    GrpcSettings,
    HttpSettings,
    InternalSettings,
    Settings,
)
from aetheris_server.processes.ports import reserved_port, settings_by_process


def _settings(**internal: object) -> Settings:
    return Settings(internal=InternalSettings.model_validate(internal), processes=3)


def test_settings_by_process_have_internal_ports_one_after_the_other() -> None:
    made = settings_by_process(_settings(), 7233)
    assert [each.internal.port for each in made] == [7234, 7235, 7236]
    assert {each.grpc.port for each in made} == {7233}
    assert [each.http for each in made] == [HttpSettings(port=None)] * 3


def test_settings_by_process_have_advertised_ports_one_after_the_other() -> None:
    made = settings_by_process(_settings(port=9000, advertised_address="box:80"), 7233)
    assert [each.internal.port for each in made] == [9000, 9001, 9002]
    assert [each.internal.advertised_address for each in made] == ["box:80", "box:81", "box:82"]


def test_settings_by_process_leave_each_port_to_the_system_that_is_to_pick_the_first() -> None:
    settings = _settings().model_copy(update={"grpc": GrpcSettings(port=0)})
    made = settings_by_process(settings, 40_000)
    assert [each.internal.port for each in made] == [0, 0, 0]


@pytest.mark.parametrize(
    "internal, key",
    [
        ({"port": 65534}, "internal.port"),
        ({"port": 9, "advertised_address": "box:65534"}, "internal.advertised_address"),
    ],
)
def test_settings_by_process_without_a_port_for_each_name_the_key(
    internal: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError, match="found 65534, which has only 1 after it") as caught:
        settings_by_process(_settings(**internal), 7233)
    assert caught.value.key == key


@pytest.mark.parametrize(
    "port, other", [(7231, "grpc.port"), (7233, "grpc.port"), (7278, "http.port")]
)
def test_settings_by_process_with_a_port_that_is_taken_name_it(port: int, other: str) -> None:
    with pytest.raises(ConfigError, match=f"which is {other}; --internal-port") as caught:
        settings_by_process(_settings(port=port), 7233)
    assert caught.value.key == "internal.port"


def test_settings_by_process_may_have_the_port_of_another_address() -> None:
    made = settings_by_process(_settings(port=7232, host="10.0.0.1"), 7233)
    assert [each.internal.port for each in made] == [7232, 7233, 7234]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_reserved_port_is_for_those_who_share_it(host: str) -> None:
    with reserved_port(GrpcSettings(host=host, port=0)) as port:
        with _listener(is_shared=True) as one, _listener(is_shared=True) as two:
            one.bind(("127.0.0.1", port))
            one.listen()
            two.bind(("127.0.0.1", port))
            two.listen()
        with _listener(is_shared=False) as alone, pytest.raises(OSError, match="in use"):
            alone.bind(("127.0.0.1", port))
        with (
            pytest.raises(ConfigError, match=r"grpc\.port: .*--port and --host"),
            reserved_port(GrpcSettings(host=host, port=port)),
        ):
            pass


@pytest.fixture
def occupied(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port at which somebody listens, who shares it or not."""
    with _listener(is_shared=request.param) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("occupied", [True, False], indirect=True)
def test_reserved_port_at_which_somebody_listens_is_refused(occupied: int) -> None:
    with (
        pytest.raises(ConfigError) as caught,
        reserved_port(GrpcSettings(port=occupied)),
    ):
        pass
    assert caught.value.key == "grpc.port"


def test_reserved_port_is_free_afterwards_although_connections_linger() -> None:
    with reserved_port(GrpcSettings(port=0)) as port, _listener(is_shared=True) as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken, _ = listener.accept()
            # The side that closes first keeps the connection for a minute.
            taken.close()
            assert client.recv(1) == b""
    with reserved_port(GrpcSettings(port=port)) as again:
        assert again == port


def _listener(*, is_shared: bool) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
    return listener
