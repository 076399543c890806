// Fails for every event, whatever it is: for tests that look at what becomes of the event.
export async function handler() {
  throw new RangeError("this function fails for every event");
}
