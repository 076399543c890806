"""The environment variables of the runtime and of extensions ("Using Lambda environment variables"). No I/O.

Extensions do not see what concerns the runtime alone: the list is that of "Using the Lambda Extensions API to create extensions".
"""

from __future__ import annotations

from sandbox.config import Function, Mode

# Not secrets: the pair that AWS's own documentation uses.
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "sandbox-session-token",
)
_RUNTIME_ONLY = (
    "_HANDLER",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_X_AMZN_TRACE_ID",
)


def runtime_variables(function: Function, api: str, log_stream: str, credentials_token: str | None) -> dict[str, str]:
    """For the runtime. `api` is host:port; `credentials_token` is given where credentials come from the local endpoint."""
    defaults = {
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    own = {
        "_HANDLER": function.handler,
        "AWS_EXECUTION_ENV": "AWS_Lambda_backstop_sandbox",
        "AWS_REGION": function.region,
        "AWS_DEFAULT_REGION": function.region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": function.mode.value,
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_LOG_FORMAT": function.log_format,
        "AWS_LAMBDA_RUNTIME_API": api,
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
    }
    if function.managed:
        own["AWS_LAMBDA_MAX_CONCURRENCY"] = str(function.concurrency)
    if credentials_token is not None:
        own["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://{api}/2021-04-23/credentials"
        own["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = credentials_token
        keys: dict[str, str] = {}
    else:
        # A customer of the sandbox may give keys of their own, so that the function can reach a local or a real service.
        keys = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": SESSION_TOKEN,
        }
    customer = {name: value for name, value in function.environment.items() if name not in own}
    return {**defaults, **keys, **customer, **own}


def extension_variables(runtime: dict[str, str]) -> dict[str, str]:
    """What of the runtime's variables an extension sees."""
    return {name: value for name, value in runtime.items() if name not in _RUNTIME_ONLY}


def has_static_keys(function: Function) -> bool:
    """SnapStart's environments get credentials from the local endpoint, since a snapshot outlives any keys."""
    return function.mode is not Mode.SNAP_START
