"""The Python SDK: dispatch, wait, diff, promote; over HTTP when a URL is given, else by starting `outpost mcp`.

python client.py OUTPOST_BINARY REPOSITORY BRANCH [URL KEY_FILE]
"""

import os
import sys

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def use(read, write, repository, branch, how):
    async with ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
        assert len(tools) == 9, tools

        async def call(name, arguments):
            result = await session.call_tool(name, arguments)
            document = result.model_dump(by_alias=True)
            assert not document["isError"], document
            return document["structuredContent"]

        asked = {"task": "situation: edit", "agent": "codex", "repo": repository}
        dispatch = (await call("dispatch", asked))["dispatchId"]
        run = await call("wait_run", {"dispatchId": dispatch, "waitSeconds": 240})
        assert run["status"] == "COMPLETED", run
        diff = await call("get_diff", {"dispatchId": dispatch})
        assert "+Hello from the agent" in diff["text"], diff
        wrong = await session.call_tool("get_run", {"dispatchId": "nonsense"})
        assert wrong.model_dump(by_alias=True)["isError"], wrong
        wanted = {"dispatchId": dispatch, "branch": branch, "title": "A greeting", "draft": False}
        promoted = await call("promote", wanted)
        assert promoted["status"] == "DONE", promoted
        assert "/pull/" in promoted["pullRequestUrl"], promoted
        print("ok", how)


async def main(binary, repository, branch, url=None, key_file=None):
    if url is None:
        started = StdioServerParameters(
            command=binary, args=["mcp"], cwd=repository, env=dict(os.environ)
        )
        async with stdio_client(started) as (read, write):
            await use(read, write, repository, branch, "stdio")
        return
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    with open(key_file, encoding="utf-8") as file:
        headers = {"X-API-Key": file.read().strip()}
    async with httpx2.AsyncClient(headers=headers, timeout=300) as client:
        async with streamable_http_client(url, http_client=client) as streams:
            await use(streams[0], streams[1], repository, branch, "http")


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
