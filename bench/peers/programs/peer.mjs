// What the programs of the node peers share: commands from stdin, answers on stdout, and the delivery of a job.

import { createInterface } from "node:readline";
import { Pool } from "undici";

export const [, , ROLE, STORE, HANDLER] = process.argv;
export const CONCURRENCY = 64;

// The pool of undici itself: its `fetch` spends about twice as much per call.
const handler = new Pool(HANDLER, { connections: CONCURRENCY, pipelining: 1 });
const headers = { "content-type": "application/json" };

export async function deliver(payload) {
  const { statusCode, body } = await handler.request({ path: "/", method: "POST", headers, body: JSON.stringify(payload) });
  await body.dump();
  if (statusCode !== 200) throw new Error(`the handler answered ${statusCode}`);
}

// Read a command per line, {"do": NAME, ...}; run `actions[NAME]`, and say {"event": NAME, ...} with what it returned.
export async function serve(actions) {
  const say = (fields) => process.stdout.write(`${JSON.stringify(fields)}\n`);
  say({ event: "ready" });
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...given } = JSON.parse(line);
    say({ event: name, ...(await actions[name](given)) });
  }
  process.exit(0);
}

// `enqueueOne` from as many concurrent callers as jobs are delivered with, for some seconds.
export async function enqueueFor({ seconds }, enqueueOne) {
  let enqueued = 0;
  const begun = performance.now();
  const caller = async () => {
    while (performance.now() - begun < seconds * 1000) {
      await enqueueOne();
      enqueued += 1;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, caller));
  return { enqueued, seconds: (performance.now() - begun) / 1000 };
}

export const PAYLOAD = { to: "ada@example.com", template: "welcome", n: 1, note: "x".repeat(100) };
