// node graphile_worker.mjs DSN HANDLER_URL

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { CONCURRENCY, PAYLOAD, STORE, deliver, enqueueFor, serve } from "./peer.mjs";

// Its pools outlast a round, so that no round pays for connections.
const pgPool = new pg.Pool({ connectionString: STORE, max: 20, idleTimeoutMillis: 0 });
const logger = new Logger(() => () => {});
// What its page on performance measures with.
const preset = {
  worker: {
    concurrentJobs: CONCURRENCY,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};
const taskList = { deliver };
const utils = await makeWorkerUtils({ pgPool, logger });
await utils.migrate();
let runner;

await serve({
  fill: ({ jobs }) => utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: "deliver", payload: PAYLOAD }))).then(() => ({})),
  enqueue: (given) => enqueueFor(given, () => utils.addJob("deliver", PAYLOAD)),
  work: async () => {
    runner = await run({ pgPool, logger, preset, taskList, noHandleSignals: true });
  },
  rest: () => runner.stop(),
});
