//! Bodies of the description that no type of the gateway stands for: it reads and writes them by hand.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, Object, ObjectBuilder, RefOr, Schema, SchemaFormat, Type,
        schema::{AdditionalProperties, SchemaType},
    },
};

/// What an attribute of a CloudEvent may be called, and the two members that hold its data.
const MEMBER_NAMES: &str = "^([a-z0-9]{1,20}|data_base64)$";

/// A CloudEvent in JSON.
#[derive(Debug)]
pub(crate) struct CloudEvent;

impl PartialSchema for CloudEvent {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let described = |description| text().description(Some(description));
        let time = |description: &str| {
            let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
            text().format(Some(format)).description(Some(description))
        };
        let uri = SchemaFormat::Custom("uri-reference".to_owned());
        let base64 = ObjectBuilder::new().schema_type(Type::String).content_encoding("base64");
        let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "A CloudEvent (version 1.0) in JSON. Members that are not named here are extensions.",
            ))
            .property("specversion", text().enum_values(Some(["1.0"])))
            .property("id", described("Unique within the source; the event's id"))
            .property("source", described("A URI reference of what the event comes from").format(Some(uri)))
            .property("type", described("What kind of event it is"))
            .property("time", time("When it happened; default: now"))
            .property("subject", text())
            .property("dataschema", text())
            .property("datacontenttype", described("The media type of the data; default: `application/json`"))
            .property("partitionkey", described("The event's key"))
            .property("expirytime", time("From when on it is not delivered any more"))
            .property(
                "levadatombstone",
                ObjectBuilder::new().schema_type(Type::Boolean).description(Some(
                    "An event without payload, which deletes its key in a topic that is compacted",
                )),
            )
            .property(
                "data",
                any.description(Some("The data as JSON, or as a text if `datacontenttype` is no JSON")),
            )
            .property(
                "data_base64",
                base64.description(Some("The data as bytes in base64; not beside `data`")),
            )
            .required("specversion")
            .required("id")
            .required("source")
            .required("type")
            .property_names(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(MEMBER_NAMES))))
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(extension().into()))))
            .into()
    }
}

impl ToSchema for CloudEvent {
    fn name() -> Cow<'static, str> {
        "CloudEvent".into()
    }
}

/// The value of an extension.
fn extension() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Integer, Type::Boolean]))
        .minimum(Some(i32::MIN))
        .maximum(Some(i32::MAX))
        .build()
}

/// Bytes that mean nothing to the gateway.
#[derive(Debug)]
pub(crate) struct AnyBytes;

impl PartialSchema for AnyBytes {
    fn schema() -> RefOr<Schema> {
        let bytes = ObjectBuilder::new().schema_type(Type::String);
        bytes.content_media_type("application/octet-stream").into()
    }
}

impl ToSchema for AnyBytes {
    fn name() -> Cow<'static, str> {
        "AnyBytes".into()
    }
}
