// The function of the language tests, in JavaScript: what it does with an event, the event's `do` says.
import { setTimeout as sleep } from "node:timers/promises";

if (process.env.FAIL_INIT) throw new TypeError("TABLE_NAME is not set");

class PaymentDeclined extends Error {
  name = "PaymentDeclined";
}

export async function handler(event, context) {
  console.log(JSON.stringify({ requestId: context.awsRequestId, message: `asked to ${event.do}` }));
  switch (event.do) {
    case "throw":
      charge(event.message);
      break;
    case "hang":
      await sleep(900_000);
      break;
    case "exit":
      process.exit(3);
      break;
    case "panic": // thrown where no handler of the runtime's looks: it ends the process
      setImmediate(() => charge("thrown in a callback"));
      await sleep(900_000);
      break;
    case "crash":
      process.abort();
      break;
    case "memory":
      await takeAllMemory();
  }
  return { text: event.text };
}

function charge(message) {
  throw new PaymentDeclined(message);
}

// Outside V8's heap, whose own limit would end the process by itself.
async function takeAllMemory() {
  const kept = [];
  for (;;) {
    kept.push(Buffer.alloc(4 << 20, 1));
    if (kept.length % 4 === 0) await new Promise(setImmediate);
  }
}
