//! The crate lambda-simulator behind standard input and output, one command and one JSON answer a line:
//! `extensions N` waits until N have registered, `freeze PID` adds a process to those that are frozen,
//! `invoke JSON` waits for the outcome, `frozen` waits until the processes are, `telemetry` lists the events, `shutdown` ends.

use std::error::Error;
use std::time::Duration;

use lambda_simulator::{FreezeMode, ShutdownReason, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let simulator = Simulator::builder()
        .function_name("function")
        .freeze_mode(FreezeMode::Process)
        .build()
        .await?;
    simulator.enable_telemetry_capture().await;
    println!("{}", json!({"api": simulator.addr().to_string()}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        if command == "shutdown" {
            simulator.graceful_shutdown(ShutdownReason::Spindown).await;
            println!("{}", json!({}));
            return Ok(());
        }
        println!("{}", answer(&simulator, command, argument).await?);
    }
    Ok(())
}

async fn answer(simulator: &Simulator, command: &str, argument: &str) -> Result<Value, Box<dyn Error>> {
    match command {
        "extensions" => {
            let wanted: usize = argument.parse()?;
            simulator
                .wait_for(|| async { simulator.extension_count().await >= wanted }, LIMIT)
                .await?;
        }
        "freeze" => simulator.register_freeze_pid(argument.parse()?),
        "invoke" => {
            let id = simulator.enqueue_payload(serde_json::from_str(argument)?).await;
            let state = simulator.wait_for_invocation_complete(&id, LIMIT).await?;
            simulator.wait_for_extensions_ready(&id, LIMIT).await?;
            return Ok(json!({"status": format!("{:?}", state.status)}));
        }
        "frozen" => simulator.wait_for_frozen(LIMIT).await?,
        "telemetry" => return Ok(serde_json::to_value(simulator.get_telemetry_events().await)?),
        _ => return Err(format!("unknown command {command}").into()),
    }
    Ok(json!({}))
}
