//! A client of WebSockets (RFC 6455), byte by byte: masks what it sends, hides nothing of what it gets.
use super::client::Client;
use std::net::SocketAddr;

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The code of a close, 1005 if it has none.
    Close(u16),
}

pub struct Socket {
    pub client: Client,
}

/// The fields of a handshake.
pub const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Socket {
    /// Opens one; `fields` are complete further lines.
    pub fn open(address: SocketAddr, target: &str, fields: &str) -> Socket {
        Self::open_sending(address, target, fields, b"")
    }

    /// The same, with bytes that follow the handshake at once.
    pub fn open_sending(address: SocketAddr, target: &str, fields: &str, ahead: &[u8]) -> Socket {
        let mut client = Client::new(address);
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{HANDSHAKE}{fields}\r\n");
        client.send([head.as_bytes(), ahead].concat());
        let head = client.take_through("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Socket { client }
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        let head = self.client.take(2);
        assert_eq!(head[0] & 0xf0, 0x80, "every frame of ours is whole: {head:?}");
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.client.take(2).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.client.take(8).try_into().unwrap()) as usize,
            length => usize::from(length),
        };
        let payload = self.client.take(length);
        match head[0] & 0x0f {
            1 => Frame::Text(String::from_utf8(payload).unwrap()),
            8 if payload.is_empty() => Frame::Close(1005),
            8 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            other => panic!("a frame of kind {other}"),
        }
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        match self.frame() {
            Frame::Text(text) => text,
            other => panic!("{other:?} instead of text"),
        }
    }

    pub fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Sends a frame of this kind.
    pub fn send(&mut self, kind: u8, payload: &[u8]) {
        self.client.send(masked(kind, payload));
    }
}

/// A whole frame as a client sends it.
pub fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | kind];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
