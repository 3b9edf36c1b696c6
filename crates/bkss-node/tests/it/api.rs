//! The HTTP interface over real TCP: what meters and people use, and what enemies try.

use std::{net::SocketAddr, time::Duration};

use bkss_ledger::{Transaction, Trust};
use bkss_node::{
    Message,
    api::{self, Listed, What},
    process::start_provider,
    service::{self, Settings},
};
use bkss_scheme::{Digest, LinkIndex, MeterId, ProviderId, transaction::Submit};
use commonware_runtime::{Runner, Supervisor, tokio as runtime};
use expect_test::expect_file;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_core::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{consortium::Consortium, network};

/// Runs a test against the interface of one provider of four, the others being away.
fn with_node<T: Future<Output = ()>>(test: impl FnOnce(SocketAddr, Consortium) -> T) {
    let mut consortium = Consortium::new(7);
    consortium.rng = ChaCha8Rng::seed_from_u64(8);
    let dir = tempfile::tempdir().unwrap();
    let config = runtime::Config::new().with_storage_directory(dir.path()).with_worker_threads(2);
    runtime::Runner::new(config).start(|ctx| async move {
        let config = network::configs(&consortium, std::time::SystemTime::UNIX_EPOCH).remove(0);
        let settings = Settings {
            provider: ProviderId(0),
            http: "127.0.0.1:0".parse().unwrap(),
            stale_after: Duration::from_secs(3600),
            listed: Listed { proxies: vec!["127.0.1.0/24".parse().unwrap()], head_ends: vec![] },
            storage: dir.path().to_owned(),
            partition: config.partition.clone(),
            trust: Trust::new(bkss_ledger::Genesis::clone(&consortium.genesis)),
            clock: config.clock.clone(),
            sessions: Box::new(|_| Ok(())),
            genesis: Box::new(|_| Ok(())),
        };
        let p2p = "127.0.0.1:0".parse().unwrap();
        let node = start_provider(ctx.child("provider"), config, p2p).await.unwrap();
        let service = service::start(ctx.child("service"), node, settings).await.unwrap();
        while !call(service.http, "GET /v1/ready", "", &[]).await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        test(service.http, consortium).await;
    });
}

/// Sends a request and reads what comes until the end.
async fn call(http: SocketAddr, line: &str, head: &str, body: &[u8]) -> String {
    ask(TcpStream::connect(http).await.unwrap(), line, head, body).await
}

async fn ask(mut stream: TcpStream, line: &str, head: &str, body: &[u8]) -> String {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {head}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await; // it may be refused before its end
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "neither an answer nor an end");
    String::from_utf8_lossy(&answer).into_owned()
}

const CBOR: &str = "Content-Type: application/cbor\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_document_is_the_one_in_the_repository() {
    let document = api::openapi();
    expect_file!["../../../../docs/openapi.json"].assert_eq(&document);
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    let mut references = 0;
    for piece in document.split("\"#/components/schemas/").skip(1) {
        let name = piece.split('"').next().unwrap();
        assert!(json["components"]["schemas"][name].is_object(), "{name} is not described");
        references += 1;
    }
    assert!(references > 30, "{references} references");
    let paths = json["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 25);
    assert!(!document.contains("int32") && !document.contains("int64"), "they have a sign");
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let named = path.matches('{').count();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(in_path.count(), named, "{method} {path}");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            let statuses: &[_] =
                if method == "post" { &["400", "408", "413", "415", "429", "503"] } else { &[] };
            for status in statuses {
                let problem = &operation["responses"][status]["content"];
                assert!(problem["application/problem+json"].is_object(), "{path} {status}");
            }
        }
    }
}

#[test]
fn meters_use_cbor_and_people_json() {
    with_node(async |http, mut consortium| {
        let meter = consortium.meter(0);
        let registration: Message = Transaction::Registration(meter.registration.clone()).into();
        let body = bytes(&registration);
        let answer = call(http, "POST /v1/registration", CBOR, &body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("{\"answer\":\"accepted\"}"), "{answer}");
        let accept = format!("{CBOR}Accept: application/cbor\r\n");
        let answer = call(http, "POST /v1/registration", &accept, &body).await;
        assert!(answer.ends_with("\r\n\r\n\u{fffd}\0"), "an array of one 0: {answer:?}");
        let json = format!("{{\"transaction\":\"{}\"}}", hex(&body));
        let answer = call(http, "POST /v1/registration", JSON, json.as_bytes()).await;
        assert!(answer.ends_with("{\"answer\":\"accepted\"}"), "{answer}");
        let answer = call(http, "POST /v1/change", CBOR, &body).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("\"found\":\"a registration\""), "{answer}");

        // No block is made, since the others are away: the meter is not known yet.
        let signed = meter.sign(1, 5);
        let (meter, index, value) = (MeterId(0), signed.index, signed.value);
        let submit: Message = Submit { meter, index, value, body: &signed.body }.into();
        let answer = call(http, "POST /v1/submit", CBOR, &bytes(&submit)).await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
        assert!(answer.contains("\"reason\":\"unknown_meter\""), "{answer}");
        let both = [body.clone(), bytes(&submit)].concat();
        let answer = call(http, "POST /v1/batch", CBOR, &both).await;
        let order = "[{\"answer\":\"accepted\"},{\"answer\":\"refused\",";
        assert!(answer.contains(order), "one answer each, in order: {answer}");
        let json = format!(
            "[{{\"submit\":{{\"meter\":0,\"index\":1,\"value\":\"{}\",\"body\":\"{}\"}}}}]",
            hex(&value.0),
            hex(&signed.body)
        );
        let answer = call(http, "POST /v1/batch", JSON, json.as_bytes()).await;
        assert!(answer.contains("unknown_meter"), "{answer}");

        let answer = call(http, "GET /v1/openapi.json", "", &[]).await;
        assert!(answer.ends_with(&api::openapi()), "{answer}");
        let answer = call(http, "GET /metrics", "", &[]).await;
        assert!(answer.contains("kind=\"submit\",answer=\"unknown_meter\"} 3"), "{answer}");
    });
}

#[test]
fn what_is_malformed_is_named_with_its_place() {
    with_node(async |http, _| {
        let index = LinkIndex::new(1, 9).unwrap();
        let submit: Message =
            Submit { meter: MeterId(0), index, value: Digest([1; 32]), body: &[0] }.into();
        let cut = &bytes(&submit)[..20];
        let longer = [bytes(&submit), vec![0xff]].concat();
        let meter = "{\"meter\":-1,\"index\":1,\"value\":\"\",\"body\":\"\"}".as_bytes();
        let link = "{\"meter\":1,\"index\":0,\"value\":\"\",\"body\":\"\"}".as_bytes();
        let value = "{\"meter\":1,\"index\":1,\"value\":\"12\",\"body\":\"\"}".as_bytes();
        let array = "[1,1,\"00\",\"00\"]".as_bytes();
        let arrays = "[{\"release\":[1,1,\"00\"]}]".as_bytes();
        let (good, bad) = ("00".repeat(32), format!("00x{}", "0".repeat(61)));
        let items = format!(
            "[{{\"release\":{{\"meter\":1,\"index\":1,\"link\":\"{good}\"}}}},\
             {{\"release\":{{\"meter\":1,\"index\":1,\"link\":\"{bad}\"}}}}]"
        );
        let items = items.as_bytes();
        let coded = "Content-Type: APPLICATION/JSON\r\nContent-Encoding: gzip\r\n";
        for (line, head, body, status, part) in [
            ("POST /v1/submit", CBOR, cut, 400, "submit: ends too early at byte "),
            ("POST /v1/submit", CBOR, &longer, 400, "not the canonical spelling at byte"),
            ("POST /v1/batch", CBOR, &longer, 400, "\"at\":\"item 1, byte "),
            ("POST /v1/batch", JSON, items, 400, "\"at\":\"item 1, link\""),
            ("POST /v1/batch", JSON, items, 400, "a character that is none, at place 2"),
            ("POST /v1/submit", JSON, array, 400, "expected an object"),
            ("POST /v1/batch", JSON, arrays, 400, "expected an object"),
            ("POST /v1/submit", JSON, b"{", 400, "\"at\":\"request, line 1 column 1\""),
            ("POST /v1/submit", JSON, meter, 400, "invalid value: integer `-1`"),
            ("POST /v1/submit", JSON, link, 400, "\"expected\":\"a link from 1 to 1048576\""),
            (
                "POST /v1/submit",
                JSON,
                value,
                400,
                "\"expected\":\"64 hexadecimal digits\",\"found\":\"2 digits\"",
            ),
            ("POST /v1/submit", "", b"{}", 415, "application/cbor or application/json"),
            ("POST /v1/submit", coded, b"{}", 415, "\"at\":\"Content-Encoding\""),
            ("GET /v1/submit", "", b"", 405, "unknown method"),
            ("POST /v1/status", "", b"{}", 405, "unknown method"),
            ("GET /nowhere", "", b"", 404, "\"found\":\"/nowhere\""),
            ("GET /v1/slots/x/1", "", b"", 400, "\"at\":\"number 1 of the path\""),
            ("GET /v1/slots/1/-1", "", b"", 400, "\"found\":\"-1\""),
            ("GET /v1/blocks/x", "", b"", 400, "\"expected\":\"a whole number\""),
            ("GET /v1/slots/1/0", "", b"", 400, "a link from 1 to"),
            ("GET /v1/slots/1/1", "", b"", 404, "meter 1 is not registered"),
            ("GET /v1/receipts/1/1", "", b"", 404, "meter 1 is not registered"),
            ("GET /v1/registrations/1", "", b"", 404, "meter 1 is not registered"),
            ("GET /v1/blocks/1", "", b"", 404, "\"at\":\"height\""),
            ("GET /v1/blocks?from=0", "", b"", 400, "\"at\":\"from\""),
            ("GET /v1/blocks?limit=101", "", b"", 400, "from 1 to 100 rows"),
            ("GET /v1/blocks?wait=26", "", b"", 400, "at most 25 seconds"),
            ("GET /v1/openings?from=0", "", b"", 400, "\"at\":\"from\""),
            ("GET /v1/meters?limit=0", "", b"", 400, "\"at\":\"limit\""),
            ("GET /v1/meters?page=2", "", b"", 400, "\"at\":\"query\""),
            ("GET /v1/meters/7", "", b"", 404, "meter 7 is not registered"),
            ("GET /v1/meters/7/slots", "", b"", 404, "meter 7 is not registered"),
            ("GET /v1/archive?to=1", "", b"", 404, "\"at\":\"to\""),
            ("GET /v1/status", "Host: another\r\n", b"", 400, "\"found\":\"several\""),
            ("GET /v1/time?after=x", "", b"", 400, "\"at\":\"query\""),
            ("GET /v1/time?after=9999999999999", "", b"", 404, "\"at\":\"after\""),
        ] {
            let answer = call(http, line, head, body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            assert!(answer.contains(part), "{line}: {answer}");
            assert!(answer.contains("content-type: application/problem+json"), "{answer}");
            for field in ["\"title\":", "\"status\":", "\"expected\":", "\"found\":", "\"at\":"] {
                assert!(answer.contains(field), "{line}: {answer}");
            }
        }
    });
}

#[test]
fn requests_have_names_and_lists_have_ends() {
    with_node(async |http, _| {
        let answer = call(http, "GET /v1/status", "X-Request-Id: a.b-7\r\n", b"").await;
        assert!(answer.contains("x-request-id: a.b-7\r\n"), "{answer}");
        for odd in ["", "a b", "a\u{7f}", &"x".repeat(65)] {
            let answer = call(http, "GET /v1/x", &format!("X-Request-Id: {odd}\r\n"), b"").await;
            let made_up =
                answer.contains("x-request-id: ") && !answer.contains(&format!(": {odd}\r"));
            assert!(made_up || answer.starts_with("HTTP/1.1 400"), "{odd}: {answer}");
        }
        for (path, expected) in [
            ("/v1/blocks", "{\"blocks\":[],\"next\":1}"),
            ("/v1/blocks?from=9&limit=5&wait=1", "{\"blocks\":[],\"next\":9}"),
            ("/v1/openings", "{\"next\":1,\"openings\":[],\"skip\":0}"),
            ("/v1/meters?owner=0", "{\"chains\":[],\"next\":null}"),
        ] {
            let answer = call(http, &format!("GET {path}"), "", b"").await;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let json = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(json(body), json(expected), "{path}");
        }
        let answer = call(http, "GET /v1/providers?from=1&limit=2", "", b"").await;
        assert!(answer.contains("\"next\":3"), "{answer}");
        assert_eq!(answer.matches("\"vote_key\"").count(), 2, "{answer}");
        let answer = call(http, "GET /v1/providers?from=3&limit=2", "", b"").await;
        assert!(answer.contains("\"next\":null"), "{answer}");
        let answer = call(http, "GET /v1/status", "", b"").await;
        assert_eq!(answer.matches("\"connected\":false").count(), 3, "{answer}");
        assert!(answer.contains("\"votes_reachable\":1"), "{answer}");
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = read(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("one Host"), "{answer}");
    });
}

#[test]
fn those_who_wait_for_a_block_leave_room_for_others() {
    with_node(async |http, _| {
        // As many as one address may have under way, from several.
        let mut waiting = JoinSet::new();
        for place in 0..api::MAX_WAITS {
            let last = u8::try_from(20 + place / 30).unwrap();
            waiting.spawn(async move {
                let stream = from([127, 0, 0, last], http).await;
                ask(stream, "GET /v1/blocks?from=9&wait=6", "", b"").await
            });
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = tokio::time::Instant::now();
        let stream = from([127, 0, 0, 40], http).await;
        let answer = ask(stream, "GET /v1/blocks?from=9&wait=25", "", b"").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(3), "one too many does not wait");
        while let Some(answer) = waiting.join_next().await {
            let answer = answer.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(began.elapsed() > Duration::from_secs(2), "the others have waited");
    });
}

#[test]
fn random_bytes_and_huge_lengths_are_answered_or_cut_off() {
    with_node(async |http, _| {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for round in 0..64 {
            let mut noise = vec![0; 1 + round * 97];
            rng.fill_bytes(&mut noise);
            let mut stream = TcpStream::connect(http).await.unwrap();
            let _ = stream.write_all(&noise).await; // it may be cut off
            let _ = stream.shutdown().await;
            let answer = read(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        let mut stream = TcpStream::connect(http).await.unwrap();
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: a\r\n{CBOR}Content-Length: 9999999999999\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("\"found\":\"9999999999999 bytes or more\""), "{answer}");

        // A length that is not announced is counted.
        let mut stream = TcpStream::connect(http).await.unwrap();
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: a\r\n{CBOR}Transfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
        for _ in 0..=api::MAX_BODY / 0x10000 {
            if stream.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 413");

        let long = format!("X: {}\r\n", "a".repeat(64 << 10));
        let answer = call(http, "GET /v1/status", &long, &[]).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        let answer = call(http, "GET /v1/status", "", &[]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "the node goes on: {answer}");
    });
}

#[test]
fn slow_clients_are_cut_off_and_hold_up_nobody() {
    with_node(async |http, _| {
        let mut silent = TcpStream::connect(http).await.unwrap();
        let mut slow = TcpStream::connect(http).await.unwrap();
        slow.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
        // One long body more than one address may send at the same time, none of them ending:
        // whichever comes last is refused.
        let mut long = JoinSet::new();
        for _ in 0..=What::LongBody.room().address {
            long.spawn(async move {
                let mut stream = TcpStream::connect(http).await.unwrap();
                let head = format!(
                    "POST /v1/batch HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{CBOR}\
                     Content-Length: 1000000\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&[0; 100_000]).await.unwrap();
                read(&mut stream).await
            });
        }
        let answer = long.join_next().await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 429"), "one too many: {answer}");
        assert!(answer.contains("retry-after: 1"), "{answer}");
        // What comes in drops is not waited for, and its sender is told.
        while let Some(answer) = long.join_next().await {
            let answer = answer.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
            assert!(answer.contains("32768 bytes a second"), "{answer}");
        }
        let answer = call(http, "GET /v1/status", "", &[]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "short requests go on: {answer}");

        let limit = api::HEADER_TIMEOUT + Duration::from_secs(5);
        for (what, stream) in [("silent", &mut silent), ("slow", &mut slow)] {
            let mut rest = Vec::new();
            let ended = timeout(limit, stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the {what} connection is still open");
        }
    });
}

/// A connection from one of this machine's addresses.
async fn from(source: [u8; 4], http: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(http).await.unwrap()
}

/// Whether a connection has been closed.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[test]
fn an_address_with_too_many_connections_loses_those_and_no_other_does() {
    with_node(async |http, _| {
        let room = What::Connection.room();
        let mut open = Vec::new();
        for _ in 0..room.address + 40 {
            open.push(from([127, 0, 0, 2], http).await);
        }
        let mut other = from([127, 0, 0, 3], http).await;
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        other.write_all(request).await.unwrap();
        let answer = read_some(&mut other).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut closed = 0;
        for stream in &mut open {
            closed += usize::from(is_closed(stream).await);
        }
        assert_eq!(closed, 40, "of {}", open.len());
        // Many addresses together have all there is; a newcomer still finds room.
        for last in 10..=255 {
            if open.len() >= room.in_all + 40 {
                break;
            }
            for _ in 0..room.address {
                open.push(from([127, 0, 0, last], http).await);
            }
        }
        let mut newcomer = from([127, 0, 0, 4], http).await;
        newcomer.write_all(request).await.unwrap();
        let answer = read_some(&mut newcomer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("bkss_api_connections_refused_total"), "{answer}");
    });
}

/// Requests whose bodies never end keep nobody else's request waiting, and health least of all.
#[test]
fn slow_bodies_keep_no_request_waiting() {
    with_node(async |http, _| {
        let mut slow = Vec::new();
        for last in 10..20 {
            for _ in 0..What::Connection.room().address - 20 {
                let mut stream = from([127, 0, 0, last], http).await;
                let head = format!(
                    "POST /v1/submit HTTP/1.1\r\nHost: a\r\n{JSON}Content-Length: 60000\r\n\r\n{{"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                slow.push(stream);
            }
        }
        for route in ["GET /v1/health", "GET /v1/status", "GET /metrics", "GET /v1/members"] {
            let answer = timeout(Duration::from_secs(5), call(http, route, "", &[])).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{route}: {answer}");
        }
        let answer = call(http, "POST /v1/submit", JSON, b"{}").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        drop(slow);
    });
}

/// Behind a proxy, the address counts that it forwards.
#[test]
fn callers_behind_a_proxy_have_shares_of_their_own() {
    with_node(async |http, _| {
        let body = |from: &'static str, source| async move {
            let mut stream = self::from(source, http).await;
            let head = format!(
                "POST /v1/batch HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{CBOR}\
                 X-Forwarded-For: {from}\r\nContent-Length: 1000000\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[0; 100_000]).await.unwrap();
            stream
        };
        let most = What::LongBody.room().address;
        let mut open = Vec::new();
        for _ in 0..most {
            open.push(body("203.0.113.5", [127, 0, 1, 1]).await);
        }
        let mut refused = body("203.0.113.5", [127, 0, 1, 1]).await;
        let answer = read_some(&mut refused).await;
        assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
        for (from, source) in [("203.0.113.6", [127, 0, 1, 1]), ("203.0.113.5", [127, 0, 0, 9])] {
            let mut other = body(from, source).await;
            assert!(!is_closed(&mut other).await, "{from} over {source:?} has its own share");
            open.push(other);
        }
    });
}

/// Registrations with false signatures cost their sender an answer each, and others nothing: what
/// does not depend on signatures is answered at once.
#[test]
fn a_flood_of_false_registrations_delays_only_itself() {
    with_node(async |http, mut consortium| {
        let mut registration = consortium.meter(1).registration;
        registration.sdi_signature.0[9] ^= 1;
        let message = Message::from(Transaction::Registration(registration));
        let of = |count: usize| bytes(&message).repeat(count);
        let answer = call(http, "POST /v1/batch", CBOR, &of(65)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("at most 64 registrations or changes"), "{answer}");
        let mut flood = JoinSet::new();
        for number in 0..200 {
            let (body, stream) = (of(64), from([127, 0, 0, 10 + number % 5], http).await);
            flood.spawn(async move { ask(stream, "POST /v1/batch", CBOR, &body).await });
        }
        for route in ["GET /v1/health", "GET /v1/status"] {
            let answer =
                timeout(Duration::from_secs(10), call(http, route, "", &[])).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let (mut refused, mut overloaded) = (0, 0);
        while let Some(answer) = flood.join_next().await {
            let answer = answer.unwrap();
            let count = answer.matches("\"answer\":\"refused\"").count();
            match answer.split(' ').nth(1) {
                Some("200") => {
                    assert_eq!(count, 64, "{answer}");
                    refused += 1;
                }
                Some("429" | "503") => overloaded += 1,
                _ => panic!("{answer}"),
            }
        }
        assert!(refused > 0, "{overloaded} overloaded");
    });
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
