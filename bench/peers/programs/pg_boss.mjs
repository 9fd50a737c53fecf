// node pg_boss.mjs DSN HANDLER_URL

import { PgBoss } from "pg-boss";
import { PAYLOAD, STORE, deliver, enqueueFor, serve } from "./peer.mjs";

const QUEUE = "bench";

const boss = new PgBoss({ connectionString: STORE, max: 20, idleTimeoutMillis: 0 });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue(QUEUE);

await serve({
  fill: async ({ jobs }) => {
    for (let rest = jobs; rest > 0; rest -= 1000) {
      await boss.insert(QUEUE, Array.from({ length: Math.min(rest, 1000) }, () => ({ data: PAYLOAD })));
    }
  },
  enqueue: (given) => enqueueFor(given, () => boss.send(QUEUE, PAYLOAD)),
  work: async () => {
    // Large batches, fetched and completed in one statement each, and the next batch at once; while one worker completes its
    // batch, the other still delivers. The HTTP client holds calls to as many at once as the other peers have.
    const options = {
      localConcurrency: 2,
      batchSize: 500,
      burstWhenBatchFull: true,
      pollingIntervalSeconds: 0.5,
    };
    await boss.work(QUEUE, options, (jobs) => Promise.all(jobs.map((job) => deliver(job.data))).then(() => {}));
  },
  rest: () => boss.offWork(QUEUE),
});
