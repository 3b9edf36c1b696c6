//! The `OpenAPI` document: what all routes share is written once.

use utoipa::{
    Number,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        schema::{ArrayItems, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};

use super::{
    ALWAYS,
    body::{CBOR, JSON},
    error::PROBLEM,
};

/// Files that are no CBOR of ours alone.
pub(super) const FILE: &str = "application/octet-stream";

/// Adds what every route of a kind may answer, and says of bytes that they are bytes.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let always = ALWAYS.contains(&path.as_str());
        if let Some(get) = &mut item.get {
            if get.parameters.is_some() {
                add(get, 400, "malformed");
            }
            if !always {
                add(get, 408, "it takes too long");
                add(get, 429, "too many of the caller's are under way, see Retry-After");
                add(get, 503, "too many are under way, see Retry-After");
                add(get, 500, "the store is broken");
            }
            finish(get);
        }
        if let Some(post) = &mut item.post {
            add(post, 400, "malformed");
            add(post, 408, "the body comes too slowly, or it takes too long");
            add(post, 413, "too long");
            add(post, 415, "neither CBOR nor JSON");
            add(
                post,
                429,
                "overloaded, or too many of the caller's are under way: see Retry-After",
            );
            add(post, 503, "not ready or busy, see Retry-After");
            also_as_cbor(post);
            finish(post);
        }
    }
    let components = document.components.iter_mut();
    components.flat_map(|components| components.schemas.values_mut()).for_each(unsigned);
    document
}

/// All numbers of the interface are unsigned; the formats that are known are not.
fn unsigned(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            let most = match object.format {
                Some(SchemaFormat::KnownFormat(KnownFormat::Int32)) => Some(u32::MAX as usize),
                Some(SchemaFormat::KnownFormat(KnownFormat::Int64)) => Some(usize::MAX),
                _ => None,
            };
            if let Some(most) = most {
                object.format = None;
                object.minimum.get_or_insert(Number::UInt(0));
                object.maximum.get_or_insert(Number::UInt(most));
            }
            object.properties.values_mut().for_each(unsigned);
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                unsigned(items);
            }
        }
        Schema::OneOf(some) => some.items.iter_mut().for_each(unsigned),
        Schema::AllOf(some) => some.items.iter_mut().for_each(unsigned),
        _ => {}
    }
}

/// An error with this status, beside what is said of it already.
fn add(operation: &mut Operation, status: u16, description: &str) {
    let error = RefOr::Ref(Ref::from_schema_name("ErrorBody"));
    let content = ContentBuilder::new().schema(Some(error)).build();
    let known = operation.responses.responses.entry(status.to_string());
    let known =
        known.or_insert_with(|| RefOr::T(ResponseBuilder::new().description(description).build()));
    if let RefOr::T(known) = known {
        known.content.insert(PROBLEM.to_owned(), RefOr::T(content));
    }
}

/// What is answered in JSON is answered in CBOR to whoever asks for it.
fn also_as_cbor(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(Response { content, .. }) = response
            && content.contains_key(JSON)
        {
            content
                .entry(CBOR.to_owned())
                .or_insert_with(|| RefOr::T(ContentBuilder::new().build()));
        }
    }
}

/// Bytes are bytes, numbers have no sign, and errors have their media type.
fn finish(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameter.schema.iter_mut().for_each(unsigned);
        }
    }
    let bodies = operation.request_body.iter_mut();
    for body in bodies {
        if let RefOr::T(body) = body {
            for (kind, content) in &mut body.content {
                if let RefOr::T(content) = content {
                    as_bytes(kind, &mut content.schema);
                }
            }
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(Response { content, .. }) = response else { continue };
        let error = |content: &RefOr<utoipa::openapi::Content>| {
            let RefOr::T(content) = content else { return false };
            let Some(RefOr::Ref(schema)) = &content.schema else { return false };
            schema.ref_location.ends_with("/ErrorBody")
        };
        if content.get(JSON).is_some_and(error)
            && let Some(body) = content.shift_remove(JSON)
        {
            content.insert(PROBLEM.to_owned(), body);
        }
        for (kind, content) in content {
            if let RefOr::T(content) = content {
                as_bytes(kind, &mut content.schema);
            }
        }
    }
}

fn as_bytes(kind: &str, schema: &mut Option<RefOr<Schema>>) {
    if kind == CBOR || kind == FILE {
        let bytes = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        *schema = Some(RefOr::T(Schema::Object(bytes.build())));
    }
}
