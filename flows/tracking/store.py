"""Where MLflow keeps what it is told: the address of the store, and a connection to it that is safe to open at once."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

EXPERIMENT = "all-roads"
PATIENCE = 60.0  # seconds that another process may take to open or upgrade the database
_connecting = threading.Lock()


def address(root: str | Path = ".") -> str:
    """The tracking URI: MLFLOW_TRACKING_URI, or the project's own SQLite database."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    path = str(Path(root).resolve() / "mlflow.db")
    if {"?", "%"} & set(path):  # not for a URI, and MLflow makes folders named as the quoted form: seen from here
        path = os.path.relpath(path)
    return f"sqlite:///{path}"


def connect(root: str | Path) -> tuple:
    """(MlflowClient, id of the project's experiment); the database is there and up to date."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own patience with a server is minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    uri = address(root)
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    # beside the database: all studies of a project share it
    private = (database.parent if database else Path(root)).resolve() / ".roads"
    with _alone(private / "mlflow.lock"):
        from mlflow import MlflowClient

        for logger in ("mlflow", "urllib3"):  # they print tracebacks and retries of what is handled here
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        if database:
            _create(database)
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            location = None if uri.startswith("http") else (private / "mlflow").as_uri()
            return client, client.create_experiment(EXPERIMENT, location)
    return client, experiment.experiment_id


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + PATIENCE
    with _connecting, lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"another process has held {lock} for {PATIENCE:.0f} s") from None
                time.sleep(0.1)
        yield


def _create(database: Path) -> None:
    """Make the database if there is none; MLflow itself upgrades an older one, which is safe only under our lock."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    partial = database.with_name(database.name + ".partial")
    partial.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(database if database.exists() else partial)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # fails at once where MLflow would try for a minute and a half
    if not database.exists():  # made under another name, so that a kill never leaves half of the tables
        SqlAlchemyStore(f"sqlite:///{partial}", "mlruns").engine.dispose()
        partial.rename(database)
