//! An extension as another team would write it, on the crate lambda-extension: it prints what it gets.

use lambda_extension::{Error, Extension, LambdaEvent, LambdaTelemetry, NextEvent, SharedService, service_fn};

async fn on_event(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(invoke) => println!("invoke {}", invoke.request_id),
        NextEvent::Shutdown(shutdown) => {
            println!("shutdown {}", shutdown.shutdown_reason);
            std::process::exit(0);
        }
    }
    Ok(())
}

async fn on_telemetry(events: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for event in events {
        println!("telemetry {:?}", event.record);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Extension::new()
        .with_events_processor(service_fn(on_event))
        .with_telemetry_types(&["platform", "function"])
        .with_telemetry_processor(SharedService::new(service_fn(on_telemetry)))
        .run()
        .await
}
