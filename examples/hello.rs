//! A web server to wrap: `simple-artifact-server --command target/debug/examples/hello`.
//!
//! Answers every request with one short text page. It listens where the wrapper tells it to: on
//! loopback, at `PORT`.
use std::error::Error;
use std::sync::Arc;
use std::thread;

use tiny_http::{Header, Request, Response, Server};

const DEFAULT_PORT: u16 = 9090;
const THREADS: usize = 4;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse()?,
        Err(_) => DEFAULT_PORT,
    };
    let server = Arc::new(Server::http(("127.0.0.1", port))?);
    let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(serve(Arc::clone(&server)))).collect();
    for thread in threads {
        if thread.join().is_err() {
            return Err("a thread panicked".into());
        }
    }
    Ok(())
}

fn serve(server: Arc<Server>) -> impl FnOnce() {
    move || {
        while let Ok(request) = server.recv() {
            // A client that left before its answer is no reason to stop.
            let _ = answer(request);
        }
    }
}

fn answer(request: Request) -> std::io::Result<()> {
    let page = format!("hello from the wrapped server\n{} {}\n", request.method(), request.url());
    let mut response = Response::from_string(page);
    if let Ok(header) = Header::from_bytes("Content-Type", "text/plain; charset=utf-8") {
        response.add_header(header);
    }
    request.respond(response)
}
