// A Node.js runtime: takes invocations from the Runtime API and gives them to the handler, over one connection that is kept.
//
// Written by hand, after AWS's own (npm's aws-lambda-ric, whose native part takes a compiler and most of a minute to build):
// the same paths, headers and error bodies (`errorType`, `errorMessage`, `trace`), the same exit codes for what nobody caught.
// On Managed Instances (AWS_LAMBDA_MAX_CONCURRENCY) it serves that many invocations at a time and logs JSON with the request id.
import { AsyncLocalStorage } from "node:async_hooks";
import http from "node:http";
import { pathToFileURL } from "node:url";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const concurrency = Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY ?? 1);
const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency + 1 });
const current = new AsyncLocalStorage();
let lastAnswerMs = null;

function call(method, path, headers = {}, body = undefined) {
  return new Promise((resolve, reject) => {
    const options = { host, port, method, agent, path: `/2018-06-01/runtime/${path}`, headers: { ...headers } };
    if (body !== undefined) options.headers["Content-Length"] = Buffer.byteLength(body);
    const request = http.request(options, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}

function describe(error) {
  if (!(error instanceof Error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
  return { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? "").split("\n") };
}

async function postError(path, error) {
  const body = describe(error);
  const headers = { "Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": body.errorType };
  console.error(`Invoke Error ${body.errorType}: ${body.errorMessage}`);
  return call("POST", path, headers, JSON.stringify(body));
}

function logAsJson() {
  for (const [name, level] of [["log", "INFO"], ["info", "INFO"], ["warn", "WARN"], ["error", "ERROR"]]) {
    console[name] = (...words) => {
      const line = { timestamp: new Date().toISOString(), level, requestId: current.getStore()?.requestId, message: words.join(" ") };
      process.stdout.write(JSON.stringify(line) + "\n");
    };
  }
}

async function loadHandler() {
  const [file, name] = process.env._HANDLER.split(".");
  const module = await import(pathToFileURL(`${process.env.LAMBDA_TASK_ROOT}/${file}.mjs`));
  if (typeof module[name] !== "function") {
    const error = new Error(`${process.env._HANDLER} is undefined or not exported`);
    error.name = "Runtime.HandlerNotFound";
    throw error;
  }
  return module[name];
}

async function invokeOnce(handler) {
  const next = await call("GET", "invocation/next");
  const receivedNs = Number(process.hrtime.bigint());
  const requestId = next.headers["lambda-runtime-aws-request-id"];
  const echoed = next.headers["lambda-runtime-invocation-id"];
  const headers = echoed === undefined ? {} : { "Lambda-Runtime-Invocation-Id": echoed };
  if (next.headers["lambda-runtime-trace-id"]) process.env._X_AMZN_TRACE_ID = next.headers["lambda-runtime-trace-id"];
  const context = {
    awsRequestId: requestId,
    invokedFunctionArn: next.headers["lambda-runtime-invoked-function-arn"],
    getRemainingTimeInMillis: () => Number(next.headers["lambda-runtime-deadline-ms"]) - Date.now(),
    // What only the measurements use: when the event had come in, and how long the last answer took to be taken.
    receivedNs,
    lastAnswerMs,
  };
  await current.run({ requestId }, async () => {
    let result;
    try {
      result = JSON.stringify((await handler(JSON.parse(next.body.toString("utf8")), context)) ?? null);
    } catch (error) {
      await postError(`invocation/${requestId}/error`, error);
      return;
    }
    const began = process.hrtime.bigint();
    await call("POST", `invocation/${requestId}/response`, { "Content-Type": "application/json", ...headers }, result);
    lastAnswerMs = Number(process.hrtime.bigint() - began) / 1e6;
  });
}

// As AWS's runtime: what nobody caught is reported for the invocation in hand (or for the init), then the process ends.
let reportPath = "init/error";
async function fatal(error, exitCode) {
  const requestId = current.getStore()?.requestId;
  await postError(requestId ? `invocation/${requestId}/error` : reportPath, error);
  process.exit(exitCode);
}
process.on("uncaughtException", (error) => fatal(error, 129));
process.on("unhandledRejection", (error) => fatal(error, 128));

if (process.env.AWS_LAMBDA_LOG_FORMAT === "JSON") logAsJson();

let handler;
try {
  handler = await loadHandler();
} catch (error) {
  await postError("init/error", error);
  process.exit(1);
}

async function serve() {
  for (;;) await invokeOnce(handler);
}
await Promise.all(Array.from({ length: concurrency }, serve));
