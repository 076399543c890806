//! The function of the language tests, in Rust: what it does with an event, the event's `do` says.
use lambda_runtime::{service_fn, Diagnostic, Error, LambdaEvent};
use serde_json::{json, Value};
use std::time::Duration;

/// What the tests look for as the error's type.
#[derive(Debug)]
struct PaymentDeclined(String);

impl From<PaymentDeclined> for Diagnostic {
    fn from(error: PaymentDeclined) -> Self {
        Diagnostic { error_type: "PaymentDeclined".into(), error_message: error.0 }
    }
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, PaymentDeclined> {
    let what = event.payload["do"].as_str().unwrap_or_default().to_owned();
    println!("{}", json!({"requestId": event.context.request_id, "message": format!("asked to {what}")}));
    match what.as_str() {
        "throw" => {
            let message = event.payload["message"].as_str().unwrap_or_default();
            return Err(PaymentDeclined(message.to_owned()));
        }
        "hang" => tokio::time::sleep(Duration::from_secs(900)).await,
        "exit" => std::process::exit(3),
        "panic" => panic!("the payment library gave up"), // the runtime client catches it, and posts it as an error
        "crash" => std::process::abort(),
        "memory" => take_all_memory(),
        _ => {}
    }
    Ok(json!({"text": event.payload["text"]}))
}

fn take_all_memory() {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 4 << 20]);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if std::env::var_os("FAIL_INIT").is_some() {
        return Err("TABLE_NAME is not set".into());
    }
    lambda_runtime::run(service_fn(handle)).await
}
