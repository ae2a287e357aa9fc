//! Where one request ends and the next begins: what two servers could read differently is refused,
//! and nothing of it reaches the wrapped server.

use crate::binary;
use crate::binary::client::{Client, End};
use crate::binary::{Response, Seen, Server, eventually, ok, play};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// Behind every refused request stands this one, which must never be served.
const HIDDEN: &[u8] = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// Heads to be refused: what is wrong, the bytes, the status. `H` stands for a proper Host line.
#[rustfmt::skip]
const REFUSED_HEADS: &[(&str, &[u8], u16)] = &[
    // Which of the two says how long the body is?
    ("length and chunks", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunks and length", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("length 0 and chunks", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("length and an unknown coding", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", 400),
    // Transfer-Encoding, all but spelt right.
    ("chunked, identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("identity, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400),
    ("gzip, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked, then identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    ("identity, then chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("gzip alone", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ("identity alone", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("xchunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("chunkedx", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400),
    ("a quoted chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
    ("chunked and a comma", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
    ("a comma and chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    ("a vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("a form feed after chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", 400),
    ("a NUL after chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400),
    ("a no-break space before chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 400),
    ("a folded chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("a space before the colon of the coding", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("a tab before the colon of the coding", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding behind a bare CR", b"POST / HTTP/1.1\r\nHost: h\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding behind a bare LF", b"POST / HTTP/1.1\r\nHost: h\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding and a length in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", 400),
    // Content-Length that is none.
    ("a length with a plus", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("a length with a minus", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    ("minus zero", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -0\r\n\r\n", 400),
    ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5,6\r\n\r\nhello", 400),
    ("the same length twice", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("hexadecimal digits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: a\r\n\r\nhellohello", 400),
    ("a fraction", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5.0\r\n\r\nhello", 400),
    ("an exponent", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1e1\r\n\r\nhello", 400),
    ("digits with a space", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 0\r\n\r\nhello", 400),
    ("digits with an underscore", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\nhello", 400),
    ("a quoted length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \"5\"\r\n\r\nhello", 400),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nhello", 400),
    ("a length of spaces", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:   \r\n\r\nhello", 400),
    ("a length that overflows by one", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\nhello", 400),
    ("a length of forty digits", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000000000000000000000000005\r\n\r\nhello", 400),
    ("digits of another script", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \xd9\xa5\r\n\r\nhello", 400),
    ("a folded length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 5\r\n\r\nhello", 400),
    ("a space before the colon of the length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", 400),
    // Line ends.
    ("bare LF throughout", b"GET / HTTP/1.1\nHost: h\n\n", 400),
    ("a bare LF after the request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
    ("a bare LF after a field", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    ("a bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    ("a bare CR in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
    ("a bare CR in the request line", b"GET /\rx HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("CR CR LF", b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
    ("CR CR LF after a field", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
    ("a bare LF before the request line", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a bare CR before the request line", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a folded value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
    ("a folded value with a tab", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("a folded first line", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    // Bytes in names and values.
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: h\r\nX\0Y: a\r\n\r\n", 400),
    ("a control byte in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", 400),
    ("a delete in a value", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", 400),
    ("a control byte in a name", b"GET / HTTP/1.1\r\nHost: h\r\nX\x02: a\r\n\r\n", 400),
    ("Latin-1 in a name", b"GET / HTTP/1.1\r\nHost: h\r\nCaf\xe9: a\r\n\r\n", 400),
    ("UTF-8 in a name", b"GET / HTTP/1.1\r\nHost: h\r\nCaf\xc3\xa9: a\r\n\r\n", 400),
    ("a space before a colon", b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", 400),
    ("a space in a name", b"GET / HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n", 400),
    ("a bracket in a name", b"GET / HTTP/1.1\r\nHost: h\r\nX[0]: a\r\n\r\n", 400),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400),
    ("a line without a colon", b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
    // Host.
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    ("two hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", 400),
    ("a host with a path", b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", 400),
    ("a host with a space", b"GET / HTTP/1.1\r\nHost: h i\r\n\r\n", 400),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: h, i\r\n\r\n", 400),
    ("a host with a user", b"GET / HTTP/1.1\r\nHost: user@h\r\n\r\n", 400),
    ("a host with a quote", b"GET / HTTP/1.1\r\nHost: \"h\"\r\n\r\n", 400),
    ("a host with a query", b"GET / HTTP/1.1\r\nHost: h?x\r\n\r\n", 400),
    ("a host in Latin-1", b"GET / HTTP/1.1\r\nHost: caf\xe9\r\n\r\n", 400),
    ("a bracket that stays open", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("something behind a bracket", b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400),
    ("a bracket behind an address", b"GET / HTTP/1.1\r\nHost: ::1]\r\n\r\n", 400),
    ("an address without brackets", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
    ("nothing in brackets", b"GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400),
    ("a name in brackets", b"GET / HTTP/1.1\r\nHost: [h]\r\n\r\n", 400),
    ("an address and a zone", b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400),
    ("brackets within brackets", b"GET / HTTP/1.1\r\nHost: [[::1]]\r\n\r\n", 400),
    ("a bracket within a name", b"GET / HTTP/1.1\r\nHost: h[::1]\r\n\r\n", 400),
    ("a port that is a name", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("a port with a letter", b"GET / HTTP/1.1\r\nHost: h:80x\r\n\r\n", 400),
    ("a port with a sign", b"GET / HTTP/1.1\r\nHost: h:+80\r\n\r\n", 400),
    ("two ports", b"GET / HTTP/1.1\r\nHost: h:80:80\r\n\r\n", 400),
    ("a port of an address that is a name", b"GET / HTTP/1.1\r\nHost: [::1]:x\r\n\r\n", 400),
    ("no host beside an absolute target", b"GET http://h/ HTTP/1.1\r\n\r\n", 400),
    // Versions.
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/0.9, named", b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("a version of two digits", b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
    ("half a version", b"GET / HTTP/1\r\nHost: h\r\n\r\n", 400),
    ("a version in lower case", b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
    ("another protocol", b"GET / ICY/1.1\r\nHost: h\r\n\r\n", 400),
    ("a space after the version", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    ("a word after the version", b"GET / HTTP/1.1 x\r\nHost: h\r\n\r\n", 400),
    // Targets.
    ("a user in an absolute target", b"GET http://user@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a user and password in an absolute target", b"GET http://user:pass@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("an absolute target without a host", b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("an absolute target of another scheme", b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a file target", b"GET file:///etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a backslash in an absolute target's host", b"GET http://h\\i/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a bracket that stays open in an absolute target", b"GET http://[::1/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a port that is a name in an absolute target", b"GET http://h:x/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a relative target", b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a query as target", b"GET ?x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("an asterisk for GET", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two asterisks", b"OPTIONS ** HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("an authority for GET", b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("CONNECT", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501),
    ("CONNECT to a path", b"CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    ("no target", b"GET HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("an empty target", b"GET  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("two spaces after the target", b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a tab as delimiter", b"GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a tab in the target", b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a NUL in the target", b"GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a delete in the target", b"GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a target that is not UTF-8", b"GET /a\xffb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    // Methods, and what is not HTTP at all.
    ("a method with a colon", b"GE:T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a method in Latin-1", b"G\xcbT / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("no method", b" / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("a proxy's introduction", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    // Expectations.
    ("an unknown expectation", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\n", 417),
    ("a list of expectations", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue, x\r\nContent-Length: 5\r\n\r\n", 417),
];

/// Chunked bodies to be refused: what is wrong, and the body.
#[rustfmt::skip]
const REFUSED_CHUNKS: &[(&str, &[u8])] = &[
    ("no size", b"\r\nhello\r\n0\r\n\r\n"),
    ("a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("a prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a letter", b"g\r\nhello\r\n0\r\n\r\n"),
    ("a space before", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("a space behind", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("a tab behind", b"5\t\r\nhello\r\n0\r\n\r\n"),
    ("a comma", b"5,5\r\nhello\r\n0\r\n\r\n"),
    ("an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    ("a NUL", b"5\0\r\nhello\r\n0\r\n\r\n"),
    ("a size that overflows", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a size that overflows to zero", b"10000000000000000\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("endless zeros", b"00000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a bare LF after the size", b"5\nhello\r\n0\r\n\r\n"),
    ("a bare CR after the size", b"5\rhello\r\n0\r\n\r\n"),
    ("a bare LF in an extension", b"5;a\nhello\r\n0\r\n\r\n"),
    ("a NUL in an extension", b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("an extension without a size", b";a=b\r\nhello\r\n0\r\n\r\n"),
    ("no line end after the data", b"5\r\nhello0\r\n\r\n"),
    ("a bare LF after the data", b"5\r\nhello\n0\r\n\r\n"),
    ("a bare CR after the data", b"5\r\nhello\r0\r\n\r\n"),
    ("a letter for the CR after the data", b"5\r\nhelloX\n0\r\n\r\n"),
    ("a letter for the LF after the data", b"5\r\nhello\rX0\r\n\r\n"),
    ("a letter for the LF after the size", b"5\rXhello\r\n0\r\n\r\n"),
    ("a letter for the LF after a trailer", b"5\r\nhello\r\n0\r\nA: b\rX\r\n\r\n"),
    ("a letter for the LF at the very end", b"5\r\nhello\r\n0\r\n\rX"),
    ("data longer than its size", b"5\r\nhellos\r\n0\r\n\r\n"),
    ("data shorter than its size", b"6\r\nhello\r\n0\r\n\r\n"),
    ("a bare LF after the last chunk", b"5\r\nhello\r\n0\n\r\n"),
    ("a bare LF at the very end", b"5\r\nhello\r\n0\r\n\n"),
    ("a bare LF in the trailers", b"5\r\nhello\r\n0\r\nA: b\n\r\n"),
    ("a NUL in the trailers", b"5\r\nhello\r\n0\r\nA: \0\r\n\r\n"),
];

/// A wrapped server that keeps every byte it is sent and answers each piece with 200.
fn record(listener: TcpListener) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept) = (stream.unwrap(), Arc::clone(&kept));
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut piece) {
                    kept.lock().unwrap().extend_from_slice(&piece[..n]);
                    let _ = stream.write_all(&ok(b""));
                }
            });
        }
    });
    seen
}

/// Sends `bytes`, and behind them a hidden request; the one answer must end the connection.
fn refusal(server: &Server, name: &str, bytes: &[u8]) -> Response {
    let mut client = Client::new(server.address);
    client.send([bytes, HIDDEN].concat());
    let end = client.end();
    let text = String::from_utf8_lossy(&client.buffer).into_owned();
    assert!(text.starts_with("HTTP/1.1 "), "{name}: {end:?} after {text:?}");
    assert_eq!(end, End::Closed, "{name}: {text:?}");
    let answer = Response::parse(&client.buffer, "GET");
    assert_eq!(answer.field("connection").as_deref(), Some("close"), "{name}: {text:?}");
    assert!(answer.rest.is_empty(), "{name}: more than one answer: {text:?}");
    answer
}

#[test]
fn malformed_heads_are_refused_and_nothing_of_them_passes() {
    assert!(REFUSED_HEADS.len() >= 80);
    let (server, listener) = Server::with_backend(&[]);
    let seen = record(listener);
    let mut faults = Vec::new();
    for (name, bytes, status) in REFUSED_HEADS {
        let answer = refusal(&server, name, bytes);
        if answer.status != *status {
            faults.push(format!("{name}: {} instead of {status}: {}", answer.status, answer.body_text()));
        }
        assert_eq!(answer.field("content-type").as_deref(), Some("application/json"), "{name}");
        let passed = std::mem::take(&mut *seen.lock().unwrap());
        if !passed.is_empty() {
            faults.push(format!("{name}: passed {:?}", String::from_utf8_lossy(&passed)));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    // The recording works: a proper request arrives.
    assert_eq!(server.get("/shown", "").status, 200);
    eventually("it is seen", || String::from_utf8_lossy(&seen.lock().unwrap()).contains("/shown"));
}

#[test]
fn malformed_heads_are_refused_whatever_pieces_they_come_in() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = record(listener);
    for (name, bytes, status) in REFUSED_HEADS.iter().step_by(7) {
        let mut client = Client::new(server.address);
        for byte in bytes.iter().chain(HIDDEN) {
            // The refusal may come before the end.
            if client.stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        client.end();
        let answer = Response::parse(&client.buffer, "GET");
        assert_eq!((answer.status, answer.rest.len()), (*status, 0), "{name}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn malformed_chunks_are_refused_and_store_nothing() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = record(listener);
    for (name, body) in REFUSED_CHUNKS {
        let head = b"POST /_frag/upload/file HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = refusal(&server, name, &[head, *body].concat());
        assert_eq!((answer.status, answer.code().as_str()), (400, "body_malformed"), "{name}");
    }
    assert_eq!(server.get("/_frag/files/file", "").status, 404);
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn malformed_chunks_never_become_a_whole_request_to_the_wrapped_server() {
    let (server, listener) = Server::with_backend(&[]);
    let whole = play(listener, |_| ok(b""));
    for (name, body) in REFUSED_CHUNKS {
        let head = b"POST /cut HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut client = Client::new(server.address);
        client.send([head, *body, HIDDEN].concat());
        client.end();
        let answer = Response::parse(&client.buffer, "POST");
        assert_eq!((answer.status, answer.rest.len()), (400, 0), "{name}");
    }
    assert!(whole.lock().unwrap().is_empty(), "{:?}", whole.lock().unwrap());
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let server = Server::start(binary::IDLE, binary::Reserved::new().port, &[]);
    let head = "POST /_frag/upload/file HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = |n: usize| "e".repeat(n);
    for (what, body, fits) in [
        ("extension", format!("5;{}\r\nhello\r\n0\r\n\r\n", long(4096)), true),
        ("extension", format!("5;{}\r\nhello\r\n0\r\n\r\n", long(4097)), false),
        ("extension without end", format!("5;{}", long(1 << 20)), false),
        ("trailers", format!("5\r\nhello\r\n0\r\na: {}\r\n\r\n", long(4093)), true),
        ("trailers", format!("5\r\nhello\r\n0\r\na: {}\r\nb: c\r\n\r\n", long(4093)), false),
        ("trailers without end", format!("5\r\nhello\r\n0\r\n{}", "a: b\r\n".repeat(200_000)), false),
    ] {
        let mut client = Client::new(server.address);
        // It may be refused in the middle.
        let _ = client.stream.write_all(format!("{head}{body}").as_bytes());
        let answer = client.response("POST");
        assert_eq!(answer.status, if fits { 200 } else { 400 }, "{what}: {}", answer.body_text());
    }
}

/// One proper request: what it shows, its bytes, and the request line and a field the wrapped server
/// must see (the field's value `None` = it must not see the field), and the body.
struct Accepted {
    name: &'static str,
    bytes: &'static [u8],
    line: &'static str,
    fields: &'static [(&'static str, Option<&'static [u8]>)],
    body: &'static [u8],
}

#[rustfmt::skip]
const ACCEPTED: &[Accepted] = &[
    Accepted { name: "empty lines before the request", bytes: b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", line: "GET /a HTTP/1.1", fields: &[("host", Some(b"h"))], body: b"" },
    Accepted { name: "UTF-8 in a value", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nCookie: n=\xc3\xa9\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("cookie", Some(b"n=\xc3\xa9"))], body: b"" },
    Accepted { name: "Latin-1 in a value", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nX: caf\xe9 \xff\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("x", Some(b"caf\xe9 \xff"))], body: b"" },
    Accepted { name: "a tab within a value", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nX: a\tb\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("x", Some(b"a\tb"))], body: b"" },
    Accepted { name: "space around a value", bytes: b"GET / HTTP/1.1\r\nHost:h\r\nX:\t  a b \t\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("x", Some(b"a b")), ("host", Some(b"h"))], body: b"" },
    Accepted { name: "an empty value", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("x", Some(b""))], body: b"" },
    Accepted { name: "every character of a name", bytes: b"GET / HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~09az: y\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("!#$%&'*+-.^_`|~09az", Some(b"y"))], body: b"" },
    Accepted { name: "a method in lower case", bytes: b"get / HTTP/1.1\r\nHost: h\r\n\r\n", line: "get / HTTP/1.1", fields: &[], body: b"" },
    Accepted { name: "a method of one's own", bytes: b"BREW-2 /pot HTTP/1.1\r\nHost: h\r\n\r\n", line: "BREW-2 /pot HTTP/1.1", fields: &[], body: b"" },
    Accepted { name: "an empty host", bytes: b"GET / HTTP/1.1\r\nHost:\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b""))], body: b"" },
    Accepted { name: "a host with a port", bytes: b"GET / HTTP/1.1\r\nHost: h.example:8080\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"h.example:8080"))], body: b"" },
    Accepted { name: "a literal address", bytes: b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"[::1]:8080"))], body: b"" },
    Accepted { name: "a literal address alone", bytes: b"GET / HTTP/1.1\r\nHost: [::ffff:127.0.0.1]\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"[::ffff:127.0.0.1]"))], body: b"" },
    Accepted { name: "a port of no digits", bytes: b"GET / HTTP/1.1\r\nHost: h:\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"h:"))], body: b"" },
    Accepted { name: "a port above all ports", bytes: b"GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"h:99999"))], body: b"" },
    Accepted { name: "an escape in a host", bytes: b"GET / HTTP/1.1\r\nHost: ex%41mple\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"ex%41mple"))], body: b"" },
    Accepted { name: "an absolute target", bytes: b"GET http://other.example/x?y HTTP/1.1\r\nHost: h\r\n\r\n", line: "GET /x?y HTTP/1.1", fields: &[("host", Some(b"other.example"))], body: b"" },
    Accepted { name: "an absolute target without a path", bytes: b"GET HTTP://other.example HTTP/1.1\r\nHost: h\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("host", Some(b"other.example"))], body: b"" },
    Accepted { name: "OPTIONS of the server", bytes: b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", line: "OPTIONS * HTTP/1.1", fields: &[], body: b"" },
    Accepted { name: "HTTP/1.0 without a host", bytes: b"GET /old HTTP/1.0\r\n\r\n", line: "GET /old HTTP/1.1", fields: &[], body: b"" },
    Accepted { name: "fields of this hop", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: X\r\nKeep-Alive: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n", line: "GET / HTTP/1.1", fields: &[("te", None), ("trailer", None), ("keep-alive", None), ("connection", None), ("x-hop", None), ("x-end", Some(b"2"))], body: b"" },
    Accepted { name: "a body of a length", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", line: "POST / HTTP/1.1", fields: &[("content-length", Some(b"5")), ("transfer-encoding", None)], body: b"hello" },
    Accepted { name: "a length with leading zeros", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\nhello", line: "POST / HTTP/1.1", fields: &[("content-length", Some(b"5"))], body: b"hello" },
    Accepted { name: "a length of nothing", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", line: "POST / HTTP/1.1", fields: &[("content-length", Some(b"0"))], body: b"" },
    Accepted { name: "chunks", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;x=\"y\"\r\npedia\r\n00\r\n\r\n", line: "POST / HTTP/1.1", fields: &[("transfer-encoding", Some(b"chunked")), ("content-length", None)], body: b"Wikipedia" },
    Accepted { name: "chunked in capitals, with a space behind", bytes: b"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding:\tCHUNKED \r\n\r\n1\r\na\r\n0\r\n\r\n", line: "POST / HTTP/1.1", fields: &[("transfer-encoding", Some(b"chunked"))], body: b"a" },
    Accepted { name: "trailers that forge fields", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: forged\r\nContent-Length: 99\r\nX-Verified-User-Data: {}\r\n\r\n", line: "POST / HTTP/1.1", fields: &[("host", Some(b"h")), ("content-length", None), ("x-verified-user-data", None)], body: b"a" },
    Accepted { name: "a request in a body of a length", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\n\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n", line: "POST / HTTP/1.1", fields: &[("content-length", Some(b"33"))], body: b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n" },
    Accepted { name: "a request in a chunk", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n21\r\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n\r\n0\r\n\r\n", line: "POST / HTTP/1.1", fields: &[], body: b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n" },
    Accepted { name: "a chunk that says it is the last", bytes: b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n", line: "POST / HTTP/1.1", fields: &[], body: b"0\r\n\r\n" },
    Accepted { name: "a body for GET", bytes: b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", line: "GET / HTTP/1.1", fields: &[("content-length", Some(b"5"))], body: b"hello" },
    Accepted { name: "a body for DELETE", bytes: b"DELETE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", line: "DELETE / HTTP/1.1", fields: &[], body: b"a" },
    Accepted { name: "UTF-8 in the target", bytes: b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", line: "GET /caf\u{c3}\u{a9} HTTP/1.1", fields: &[], body: b"" },
    Accepted { name: "our prefix in other spellings", bytes: b"GET /%5Ffrag/status HTTP/1.1\r\nHost: h\r\n\r\n", line: "GET /%5Ffrag/status HTTP/1.1", fields: &[], body: b"" },
];

#[test]
fn proper_requests_arrive_with_exactly_what_they_said() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"fine"));
    let latin1 = |bytes: &[u8]| bytes.iter().map(|&b| b as char).collect::<String>();
    let mut client = Client::new(server.address);
    for case in ACCEPTED {
        // All on one connection: each must end exactly where it does.
        client.send(case.bytes);
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"fine"[..]), "{}", case.name);
        let request: Seen = seen.lock().unwrap().drain(..).next_back().unwrap();
        assert_eq!(request.line(), case.line, "{}", case.name);
        assert_eq!(latin1(&request.body), latin1(case.body), "{}", case.name);
        for (name, value) in case.fields {
            assert_eq!(request.field(name), value.map(latin1), "{}: {name} in {}", case.name, request.head);
        }
        if case.line.contains("/old") {
            assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0), "{}", case.name);
            client = Client::new(server.address);
        }
    }
}

#[test]
fn the_length_of_the_largest_number_is_waited_for_and_not_believed() {
    let server = Server::start(binary::IDLE, binary::Reserved::new().port, &[]);
    let mut client = Client::new(server.address);
    client.send(
        b"POST /_frag/upload/file HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551615\r\n\r\nhello",
    );
    assert_eq!(client.response("POST").status, 413);
    client.end();
    assert_eq!(server.get("/_frag/files/file", "").status, 404);
}

#[test]
fn a_request_behind_a_proper_one_is_refused_on_its_own() {
    let (server, listener) = Server::with_backend(&[]);
    let seen = play(listener, |_| ok(b"first"));
    let mut client = Client::new(server.address);
    client.send(b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET /second HTTP/1.1\nHost: h\r\n\r\n");
    client.send(HIDDEN);
    assert_eq!(client.response("GET").body_text(), "first");
    assert_eq!(client.response("GET").status, 400);
    assert_eq!((client.end(), client.buffer.len()), (End::Closed, 0));
    assert_eq!(seen.lock().unwrap().len(), 1);
}
