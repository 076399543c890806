// For measurements: tells when the event had come in, and how long the previous answer took to be taken.
// Times are of CLOCK_MONOTONIC in ns, which the caller's process reads too.
export async function handler(event, context) {
  return { receivedNs: context.receivedNs, lastAnswerMs: context.lastAnswerMs };
}
