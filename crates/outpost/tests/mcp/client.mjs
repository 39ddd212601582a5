// The TypeScript SDK: dispatch, wait, diff, promote; over HTTP when a URL is given, else by starting `outpost mcp`.
// node client.mjs OUTPOST_BINARY REPOSITORY BRANCH [URL KEY_FILE]
// OUTPOST_TEST_MCP_DIR names the folder into which @modelcontextprotocol/sdk is installed.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const sdk = createRequire(join(process.env.OUTPOST_TEST_MCP_DIR, "x.js"));
const { Client } = sdk("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = sdk("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = sdk("@modelcontextprotocol/sdk/client/streamableHttp.js");

const [binary, repository, branch, url, keyFile] = process.argv.slice(2);
const headers = () => ({ Authorization: `Bearer ${readFileSync(keyFile, "utf8").trim()}` });
const transport = url
  ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: headers() } })
  : new StdioClientTransport({ command: binary, args: ["mcp"], cwd: repository, env: process.env });
const client = new Client({ name: "outpost-test", version: "1.0.0" });
await client.connect(transport);

const { tools } = await client.listTools();
assert.equal(tools.length, 9);
const call = async (name, args, options) => {
  const result = await client.callTool({ name, arguments: args }, undefined, options);
  assert.ok(!result.isError, JSON.stringify(result));
  return result.structuredContent;
};
const asked = { task: "situation: edit", agent: "codex", repo: repository };
const { dispatchId } = await call("dispatch", asked);
const told = [];
const options = { onprogress: (word) => told.push(word), resetTimeoutOnProgress: true };
const run = await call("wait_run", { dispatchId, waitSeconds: 240 }, options);
assert.equal(run.status, "COMPLETED", JSON.stringify(run));
assert.ok(told.length > 0, "progress was told");
const diff = await call("get_diff", { dispatchId });
assert.equal(diff.files[0].path, "README.md");
assert.match(diff.text, /\+Hello from the agent/);
const log = await client.readResource({ uri: `outpost://runs/${dispatchId}/log` });
assert.ok(log.contents[0].text.length > 0);
const wrong = await client.callTool({ name: "get_run", arguments: { dispatchId: "nonsense" } });
assert.ok(wrong.isError && wrong.content[0].text.includes("list_runs"));
const wanted = { dispatchId, branch, title: "A greeting", draft: false };
const promoted = await call("promote", wanted, options);
assert.equal(promoted.status, "DONE", JSON.stringify(promoted));
assert.match(promoted.pullRequestUrl, /\/pull\/\d+$/);
await client.close();
console.log(`ok ${url ? "http" : "stdio"} ${told.length} words of progress`);
