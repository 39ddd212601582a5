// Dispatches a task with the generated types, waits for its end, and reads what came of it.
import createClient from "openapi-fetch";
import type { components, paths } from "./outpost.js";

type Dispatch = components["schemas"]["DispatchView"];

const baseUrl = process.env.OUTPOST_URL;
const key = process.env.OUTPOST_API_KEY;
if (!baseUrl || !key) throw new Error("set OUTPOST_URL and OUTPOST_API_KEY");
const outpost = createClient<paths>({ baseUrl, headers: { "X-API-Key": key } });

/** The answer, or the problem document as an error. */
function answered<T>(result: { data?: T; error?: unknown }): T {
  if (result.data === undefined) throw new Error(JSON.stringify(result.error));
  return result.data;
}

function over({ status }: Dispatch): boolean {
  return ["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"].includes(status);
}

const body: components["schemas"]["DispatchRequest"] = { agent: "script", task: "say hello", tags: ["typescript"] };
let dispatch = answered(await outpost.POST("/dispatch", { body }));
const path = { id: dispatch.dispatchId };
while (!over(dispatch)) {
  dispatch = answered(await outpost.GET("/dispatch/{id}", { params: { path, query: { wait: 30 } } }));
}
if (dispatch.status !== "COMPLETED") throw new Error(JSON.stringify(dispatch.failure));
const log = answered(await outpost.GET("/dispatch/{id}/logs", { params: { path }, parseAs: "text" }));
if (!log.includes("hello from the script")) throw new Error(`not in the log: ${log}`);
const runs = answered(await outpost.GET("/runs", { params: { query: { tag: "typescript", limit: 5 } } }));
if (!runs.items.some((run) => run.dispatchId === path.id)) throw new Error("not in the list");
const wrong = await outpost.POST("/dispatch", { body: { agent: "script", task: "" } });
if (wrong.error?.code !== "invalid_field" || wrong.error.field !== "task") throw new Error(JSON.stringify(wrong));
console.log(`TypeScript: ${dispatch.dispatchId} ${dispatch.status}`);
