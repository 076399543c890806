// A Node.js runtime for the sandbox, of the standard library alone; paths, error bodies (`trace`) and exit codes are those of AWS's own.
// `awslambda.streamifyResponse(async (event, responseStream, context) => …)` makes a streamed response, as there.
import { AsyncLocalStorage } from "node:async_hooks";
import fs from "node:fs";
import http from "node:http";
import { PassThrough } from "node:stream";
import { finished } from "node:stream/promises";
import { pathToFileURL } from "node:url";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const concurrency = Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY ?? 1);
const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency + 1 });
const current = new AsyncLocalStorage();
const STREAMED = Symbol("streamed");
globalThis.awslambda = { streamifyResponse: (handler) => Object.assign(handler, { [STREAMED]: true }) };

function open(method, path, headers) {
  const options = { host, port, method, agent, path: `/2018-06-01/runtime/${path}`, headers };
  const request = http.request(options);
  const answer = new Promise((resolve, reject) => {
    request.on("error", reject);
    request.on("response", (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
      response.on("error", reject);
    });
  });
  return { request, answer };
}

function call(method, path, headers = {}, body = undefined) {
  const all = body === undefined ? headers : { ...headers, "Content-Length": Buffer.byteLength(body) };
  const { request, answer } = open(method, path, all);
  request.end(body);
  return answer;
}

function describe(error) {
  if (!(error instanceof Error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
  return { errorType: error.name, errorMessage: error.message, trace: (error.stack ?? "").split("\n") };
}

async function postError(path, error, headers = {}) {
  const body = describe(error);
  console.error(JSON.stringify({ errorType: body.errorType, errorMessage: body.errorMessage }));
  return call("POST", path, { "Content-Type": "application/json", ...headers }, JSON.stringify(body));
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
  const base = `${process.env.LAMBDA_TASK_ROOT}/${file}`;
  const path = [".mjs", ".cjs", ".js"].map((ending) => base + ending).find((one) => fs.existsSync(one));
  const module = path === undefined ? {} : await import(pathToFileURL(path));
  const handler = module[name] ?? module.default?.[name];
  if (typeof handler !== "function") {
    const error = new Error(`${process.env._HANDLER} is undefined or not exported`);
    error.name = path === undefined ? "Runtime.ImportModuleError" : "Runtime.HandlerNotFound";
    throw error;
  }
  return handler;
}

async function answerStreamed(handler, event, context, path, headers) {
  const { request, answer } = open("POST", path, {
    ...headers,
    "Content-Type": "application/octet-stream",
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    Trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
  });
  request.flushHeaders();
  const stream = new PassThrough();
  stream.setContentType = () => {};
  stream.on("data", (part) => request.write(part));
  try {
    await handler(event, stream, context);
    stream.end();
    await finished(stream);
  } catch (error) {
    const body = JSON.stringify(describe(error));
    console.error(body);
    request.addTrailers({
      "Lambda-Runtime-Function-Error-Type": `Function.${error.name}`,
      "Lambda-Runtime-Function-Error-Body": Buffer.from(body).toString("base64"),
    });
  }
  request.end();
  return answer;
}

async function invokeOnce(handler) {
  const next = await call("GET", "invocation/next");
  if (next.status !== 200) throw new Error(`invocation/next was answered ${next.status}: ${next.body}`);
  const requestId = next.headers["lambda-runtime-aws-request-id"];
  const invocationId = next.headers["lambda-runtime-invocation-id"];
  const headers = invocationId === undefined ? {} : { "Lambda-Runtime-Invocation-Id": invocationId };
  process.env._X_AMZN_TRACE_ID = next.headers["lambda-runtime-trace-id"] ?? "";
  const context = {
    awsRequestId: requestId,
    invokedFunctionArn: next.headers["lambda-runtime-invoked-function-arn"],
    tenantId: next.headers["lambda-runtime-aws-tenant-id"],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    getRemainingTimeInMillis: () => Number(next.headers["lambda-runtime-deadline-ms"]) - Date.now(),
  };
  const path = `invocation/${requestId}`;
  await current.run({ requestId }, async () => {
    const event = JSON.parse(next.body.toString("utf8"));
    if (handler[STREAMED]) return answerStreamed(handler, event, context, `${path}/response`, headers);
    let result;
    try {
      result = JSON.stringify((await handler(event, context)) ?? null);
    } catch (error) {
      return postError(`${path}/error`, error, headers);
    }
    return call("POST", `${path}/response`, { "Content-Type": "application/json", ...headers }, result);
  });
}

// As AWS's runtime: what nobody caught is reported for the invocation in hand (or for the init), then the process ends.
async function fatal(error, exitCode) {
  const requestId = current.getStore()?.requestId;
  await postError(requestId ? `invocation/${requestId}/error` : "init/error", error);
  process.exit(exitCode);
}
process.on("uncaughtException", (error) => fatal(error, 129));
process.on("unhandledRejection", (error) => fatal(error, 128));

if (process.env.AWS_LAMBDA_LOG_FORMAT === "JSON") logAsJson();

let handler;
try {
  handler = await loadHandler();
} catch (error) {
  await postError("init/error", error, { "Lambda-Runtime-Function-Error-Type": error.name });
  process.exit(1);
}
if (process.env.AWS_LAMBDA_INITIALIZATION_TYPE === "snap-start") await call("GET", "restore/next");

async function serve() {
  for (;;) await invokeOnce(handler);
}
await Promise.all(Array.from({ length: concurrency }, serve));
