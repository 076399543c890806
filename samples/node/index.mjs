// A small order function: checks an order, prices it, reserves the stock, charges the card, and answers with a confirmation.
//
// `simulate` in the event makes it fail the way real functions do:
//   "throw"    the card is declined: an exception that the runtime reports
//   "timeout"  the stock service never answers: Lambda ends the function at its timeout
//   "exit"     the process ends in the middle of the order: nobody reports anything
// Any other order succeeds. `{"echo": …}` is answered with what it holds, before anything else is looked at.
import { setTimeout as sleep } from "node:timers/promises";

const PRICES = new Map([
  ["TEA-GREEN-100G", 690],
  ["TEA-BLACK-100G", 590],
  ["MUG-WHITE", 1250],
]);

class InvalidOrder extends Error {
  name = "InvalidOrder";
}

class PaymentDeclined extends Error {
  name = "PaymentDeclined";
}

export async function handler(event) {
  if (event !== null && typeof event === "object" && "echo" in event) return event.echo;

  const order = check(event);
  console.log(`order ${order.orderId}: ${order.items.length} item(s) for ${order.customer}`);
  const cents = total(order.items);
  await reserveStock(order);
  const payment = await charge(order, cents);
  console.log(`order ${order.orderId}: charged ${cents} cents, payment ${payment}`);
  return { orderId: order.orderId, totalCents: cents, payment, status: "CONFIRMED" };
}

function check(order) {
  if (!order?.orderId || !Array.isArray(order.items) || order.items.length === 0) {
    throw new InvalidOrder("an order needs an orderId and at least one item");
  }
  for (const { sku, quantity } of order.items) {
    if (!PRICES.has(sku)) throw new InvalidOrder(`unknown item ${sku}`);
    if (!Number.isInteger(quantity) || quantity < 1) throw new InvalidOrder(`${sku}: quantity must be a whole number over 0`);
  }
  return order;
}

function total(items) {
  return items.reduce((sum, { sku, quantity }) => sum + PRICES.get(sku) * quantity, 0);
}

async function reserveStock(order) {
  await sleep(5);
  if (order.simulate === "timeout") {
    console.log(`order ${order.orderId}: waiting for the stock service`);
    await sleep(15 * 60_000); // longer than Lambda lets any function run
  }
}

async function charge(order, cents) {
  await sleep(5);
  if (order.simulate === "exit") {
    console.log(`order ${order.orderId}: the payment library gave up`);
    process.exit(1);
  }
  if (order.simulate === "throw") {
    throw new PaymentDeclined(`card of ${order.customer} declined for ${cents} cents (order ${order.orderId})`);
  }
  return `pay-${order.orderId}`;
}
