// node worker.js CONCURRENCY: one worker process.
const { Worker } = require("bullmq");
const IORedis = require("ioredis");

const connection = new IORedis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
const worker = new Worker("noop", async () => {}, {
  connection,
  prefix: process.env.PREFIX,
  concurrency: Number(process.argv[2]),
});
process.on("SIGTERM", async () => {
  await worker.close();
  process.exit(0);
});
