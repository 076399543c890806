// Processes one message of work. With FAIL=true in its environment it fails, as a consumer does whose database is down;
// with FAIL=false (the cause is fixed) it succeeds.
class DatabaseDown extends Error {
  name = "DatabaseDown";
}

export async function handler(event) {
  console.log(`processing ${event.job}`);
  if (process.env.FAIL === "true") throw new DatabaseDown(`no connection for ${event.job}`);
  return { job: event.job, status: "DONE" };
}
