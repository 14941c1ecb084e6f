//! The acceptance program in Rust: every language of testdata/guests has the same one.
use std::io::{Read, Write};

#[path = "../../../hostabi/abi/ds.rs"]
mod ds;

fn same(got: &[u8], want: &[u8]) -> &'static str {
    if got == want { "the same" } else { "SOMETHING ELSE" }
}

fn tour(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::var("DS_PLUGIN")?;
    let all: String = words.iter().map(|w| format!(" [{}]", w)).collect();
    println!("args: {}{}", words.len(), all);
    let mut data = Vec::new();
    std::io::stdin().read_to_end(&mut data)?;
    println!("stdin: {} bytes, {}", data.len(), String::from_utf8_lossy(&data).lines().next().unwrap_or(""));
    println!("config: {}", ds::config(&format!("settings.{}.greeting", name))?.trim_matches('"'));

    let digest = ds::put(&data, "text/plain")?;
    println!("cache: put {}", digest);
    println!("cache: got {}", same(&ds::get(&digest)?, &data));

    let (value, revision) = ds::state_get("visits")?;
    let visits: u64 = String::from_utf8(value.unwrap_or_else(|| b"0".to_vec()))?.parse()?;
    ds::state_put("visits", (visits + 1).to_string().as_bytes(), Some(revision))?;
    println!("state: visits = {}", String::from_utf8(ds::state_get("visits")?.0.unwrap_or_default())?);

    let topic = format!("{}.done", name);
    ds::publish(&topic, &format!("{{\"words\":{}}}", words.len()), &[("language", "any")])?;
    println!("event: published {}", topic);

    let (code, out, _) = ds::run("demo", "echo", &[], &data)?;
    println!("call: demo echo ended with {} and gave {}", code, same(&out, &data));
    println!("call: demo exit ended with {}", ds::run("demo", "exit", &["3"], &[])?.0);

    if let Err(e) = ds::call("/ds.host.v1.Registry/Resolve", &ds::Message::new().text(1, "ghcr.io/acme/app:1.4.0")) {
        println!("denied: {}", e);
    }
    Ok(())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Err(e) = tour(&words) {
        let _ = writeln!(std::io::stderr(), "tour: {}", e);
        std::process::exit(1);
    }
    std::process::exit(7);
}
