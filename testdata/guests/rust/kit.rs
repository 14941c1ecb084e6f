//! The conformance kit's guest in Rust: does the host calls that stand on its standard input, one after the other.
//! hosttest/relay.go has the other side.
use std::io::{Read, Write};

#[path = "../../../hostabi/abi/ds.rs"]
mod ds;

const CALL: u8 = 0;
const OPEN: u8 = 1;
const SEND: u8 = 2;
const HALF: u8 = 3;
const RECV: u8 = 4;
const CLOSE: u8 = 5;
const POLL: u8 = 6;
const READ: u8 = 7;
const WRITE: u8 = 8;
const END: u32 = 257;

/// Code, n and body of an answer.
type Answer = (u32, u32, Vec<u8>);

fn act(streams: &mut Vec<Option<ds::Stream>>, op: u8, handle: u32, method: &str, body: Vec<u8>) -> ds::Result<Answer> {
    let message = ds::Message(body);
    let done = (0, 0, Vec::new());
    match op {
        CALL => return Ok((0, 0, ds::call(method, &message)?)),
        OPEN => {
            streams.push(Some(ds::Stream::open(method, &message)?));
            return Ok((0, streams.len() as u32 - 1, Vec::new()));
        }
        READ => {
            let mut b = vec![0; 256 << 10];
            let n = ds::read(handle, &mut b)?;
            b.truncate(n);
            return Ok((0, 0, b));
        }
        WRITE => return ds::write(handle, &message.0).map(|_| done),
        CLOSE => {
            streams[handle as usize] = None; // dropped
            return Ok(done);
        }
        _ => {}
    }
    let s = streams[handle as usize].as_ref().expect("a stream that is open");
    match op {
        SEND => s.send(&message)?,
        HALF => s.half_close()?,
        RECV => return Ok(s.recv()?.map_or((END, 0, Vec::new()), |m| (0, 0, m))),
        POLL => return Ok((0, s.poll()? as u32, Vec::new())),
        _ => panic!("operation {}", op),
    }
    Ok(done)
}

/// The Status of an error, of which the SDK keeps no metadata but the fix.
fn status(e: &ds::Error) -> ds::Message {
    let info = ds::Message::new().text(1, &e.reason).text(2, "ds.host").pairs(3, &[("fix", &e.fix)]);
    let any = ds::Message::new().text(1, "type.googleapis.com/google.rpc.ErrorInfo").message(2, &info);
    ds::Message::new().int(1, e.code.into()).text(2, &e.message).message(3, &any)
}

fn main() -> std::io::Result<()> {
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    let mut streams = Vec::new();
    let mut head = [0; 17];
    while input.read_exact(&mut head).is_ok() {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut method = vec![0; number(9) as usize];
        let mut body = vec![0; number(13) as usize];
        input.read_exact(&mut method)?;
        input.read_exact(&mut body)?;
        let (code, n, body) = act(&mut streams, head[4], number(5), &String::from_utf8_lossy(&method), body)
            .unwrap_or_else(|e| (e.code, 0, status(&e).0));
        let mut reply = vec![0];
        for v in [number(0), code, n, body.len() as u32] {
            reply.extend_from_slice(&v.to_le_bytes());
        }
        reply.extend_from_slice(&body);
        output.write_all(&reply)?;
        output.flush()?;
    }
    Ok(())
}
