// node fill.js JOBS PAYLOAD: enqueues no-op jobs in bulk.
const { Queue } = require("bullmq");
const IORedis = require("ioredis");

async function main() {
  const connection = new IORedis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
  const queue = new Queue("noop", { connection, prefix: process.env.PREFIX });
  const jobs = Number(process.argv[2]);
  for (let start = 0; start < jobs; start += 1000) {
    const size = Math.min(1000, jobs - start);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: "noop", data: { payload: process.argv[3] } })));
  }
  await queue.close();
  connection.disconnect();
}

main();
