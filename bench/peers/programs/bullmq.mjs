// node bullmq.mjs REDIS_SOCKET HANDLER_URL

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { CONCURRENCY, PAYLOAD, STORE, deliver, enqueueFor, serve } from "./peer.mjs";

const connect = () => new Redis({ path: STORE, maxRetriesPerRequest: null });
const defaultJobOptions = { removeOnComplete: true };
const queue = new Queue("bench", { connection: connect(), defaultJobOptions });
const other = new Queue("enqueue", { connection: connect(), defaultJobOptions });
let worker;

await serve({
  fill: async ({ jobs }) => {
    for (let rest = jobs; rest > 0; rest -= 1000) {
      await queue.addBulk(Array.from({ length: Math.min(rest, 1000) }, () => ({ name: "deliver", data: PAYLOAD })));
    }
  },
  // Into a queue of its own, which is dropped afterwards.
  enqueue: async (given) => {
    const found = await enqueueFor(given, () => other.add("deliver", PAYLOAD));
    await other.obliterate({ force: true });
    return found;
  },
  work: async () => {
    if (worker) return worker.resume();
    worker = new Worker("bench", (job) => deliver(job.data), { connection: connect(), concurrency: CONCURRENCY });
    worker.on("error", (error) => console.error(error));
    await worker.waitUntilReady();
  },
  rest: () => worker.pause(),
});
