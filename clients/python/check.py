"""Dispatches a task with the generated client, waits for its end, and reads what came of it."""

import os

from outpost_api import Client
from outpost_api.api.dispatches import create_dispatch, get_dispatch, list_runs, read_logs
from outpost_api.models import DispatchRequest, DispatchStatus, DispatchView, Problem

OVER = {DispatchStatus.COMPLETED, DispatchStatus.FAILED, DispatchStatus.TIMEOUT, DispatchStatus.CANCELLED}


def main() -> None:
    client = Client(
        base_url=os.environ["OUTPOST_URL"],
        headers={"X-API-Key": os.environ["OUTPOST_API_KEY"]},
        timeout=60,
    )
    body = DispatchRequest(agent="script", task="say hello", tags=["python"])
    dispatch = create_dispatch.sync(client=client, body=body)
    while isinstance(dispatch, DispatchView) and dispatch.status not in OVER:
        dispatch = get_dispatch.sync(dispatch.dispatch_id, client=client, wait=30)
    assert isinstance(dispatch, DispatchView), dispatch
    assert dispatch.status == DispatchStatus.COMPLETED, dispatch
    log = read_logs.sync_detailed(dispatch.dispatch_id, client=client)
    assert b"hello from the script" in log.content, log.content
    runs = list_runs.sync(client=client, tag="python", limit=5)
    assert any(run.dispatch_id == dispatch.dispatch_id for run in runs.items), runs
    wrong = create_dispatch.sync(client=client, body=DispatchRequest(agent="script", task=""))
    assert isinstance(wrong, Problem) and wrong.field == "task", wrong
    print(f"Python: {dispatch.dispatch_id} {dispatch.status}")


if __name__ == "__main__":
    main()
