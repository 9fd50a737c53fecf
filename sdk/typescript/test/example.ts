// An enqueue, and what is wrong with it where the types know: run by tests/sdk/test_typescript.py.
import createClient from "openapi-fetch";

import { verify, VerificationError, type paths } from "../src/index.js";

const [url, key] = process.argv.slice(2);
const sluice = createClient<paths>({
  baseUrl: url ?? "http://127.0.0.1:8080",
  headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
});

await sluice.PUT("/queues/{name}", { params: { path: { name: "mail" } }, body: {} });
const { data, error } = await sluice.POST("/queues/{name}/tasks", {
  params: { path: { name: "mail" } },
  body: { payload: { to: "ada@example.com" }, delay_seconds: 60, tags: ["welcome"] },
});
if (data === undefined) {
  throw new Error(`${error.code}: ${error.detail}`);
}
const state: "scheduled" | "ready" | "running" | "succeeded" | "dead" | "cancelled" = data.state;
const read = await sluice.GET("/tasks/{task_id}", { params: { path: { task_id: data.id } } });

// @ts-expect-error  a field that no task has
const wrong: paths["/queues/{name}/tasks"]["post"]["requestBody"]["content"]["application/json"] = { payload: 1, delay: 60 };

export function handle(headers: Headers, body: string): number {
  try {
    verify(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"], body, headers);
    return 204;
  } catch (problem) {
    return problem instanceof VerificationError ? 401 : 500;
  }
}

console.log(JSON.stringify({ id: data.id, state, read: read.data?.state, wrong: wrong.payload }));
