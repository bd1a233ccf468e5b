"""A web application over whichever store STORE names: each call of / adds one to a number that the store keeps."""

import os
import socket

from flask import Flask

app = Flask(__name__)


def password() -> str:
    if path := os.environ.get("PASSWORD_FILE"):
        with open(path) as file:
            return file.read().strip()
    return os.environ.get("PASSWORD", "")


def in_redis(host: str) -> int:
    import redis

    return redis.Redis(host=host, socket_timeout=5).incr("hits")


def in_memcached(host: str) -> int:
    from pymemcache.client.base import Client

    client = Client((host, 11211), timeout=5, connect_timeout=5)
    client.add("hits", b"0", noreply=False)
    return client.incr("hits", 1)


def in_sql(connection, serial: str) -> int:
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS hits (id {serial} PRIMARY KEY)")
        cursor.execute("INSERT INTO hits VALUES (DEFAULT)")
        cursor.execute("SELECT count(*) FROM hits")
        (count,) = cursor.fetchone()
        connection.commit()
        return count


def in_postgres(host: str) -> int:
    import psycopg2

    connection = psycopg2.connect(
        host=host, user="app", password=password(), dbname="app", connect_timeout=5
    )
    return in_sql(connection, "serial")


def in_mariadb(host: str) -> int:
    import pymysql

    connection = pymysql.connect(
        host=host, user="app", password=password(), database="app", connect_timeout=5
    )
    return in_sql(connection, "int AUTO_INCREMENT")


STORES = {
    "redis": in_redis,
    "memcached": in_memcached,
    "postgres": in_postgres,
    "mariadb": in_mariadb,
}


@app.get("/")
def hit() -> str:
    store = os.environ["STORE"]
    count = STORES[store](os.environ.get("STORE_HOST", store))
    return f"hit {count} on {socket.gethostname()}\n"


@app.get("/healthy")
def healthy() -> str:
    return "yes\n"


@app.get("/name")
def name() -> str:
    return socket.gethostname() + "\n"
