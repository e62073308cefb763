import psycopg
import pytest
import redis.asyncio

pytestmark = pytest.mark.integration


def test_postgres_dsn_of_each_test_names_an_empty_database(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert tables == (0,)


def test_module_postgres_dsn_differs_from_the_tests_own(
    module_postgres_dsn: str, postgres_dsn: str
) -> None:
    assert module_postgres_dsn != postgres_dsn


def test_migrated_postgres_dsn_has_the_servers_tables(migrated_postgres_dsn: str) -> None:
    with psycopg.connect(migrated_postgres_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM log").fetchone() == (0,)


def test_migrated_postgres_dsn_of_another_test_is_empty(migrated_postgres_dsn: str) -> None:
    test_migrated_postgres_dsn_has_the_servers_tables(migrated_postgres_dsn)


async def test_redis_url_answers(redis_url: str, redis_key_prefix: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.incr(f"{redis_key_prefix}:count") == 1
