//! The description of the endpoints.

use serde_json::{Value, json};

use crate::support::against;

#[tokio::test]
async fn the_description_names_every_endpoint_with_examples_and_errors() {
    against(1, async |engine| {
        let description = engine.get("/openapi.json").await.json();
        assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{}", description["openapi"]);
        let operations = [
            ("/v1/topics/{topic}/events", "post"),
            ("/v1/topics/{topic}/events", "get"),
            ("/v1/topics/{topic}/stream", "get"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/pull", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/ack", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/nack", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/reject", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/extend", "post"),
            ("/v1/topics", "get"),
            ("/v1/topics/{topic}", "get"),
            ("/v1/topics/{topic}", "put"),
            ("/v1/topics/{topic}", "delete"),
            ("/v1/topics/{topic}/subscriptions", "get"),
            ("/v1/topics/{topic}/subscriptions/{subscription}", "get"),
            ("/v1/topics/{topic}/subscriptions/{subscription}", "put"),
            ("/v1/topics/{topic}/subscriptions/{subscription}", "delete"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/pause", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/resume", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/seek", "post"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/dead-letters/redrive", "post"),
            ("/v1/routes", "get"),
            ("/v1/routes/{route}", "get"),
            ("/v1/routes/{route}", "put"),
            ("/v1/routes/{route}", "delete"),
            ("/v1/plugins", "get"),
            ("/v1/plugins", "post"),
            ("/v1/plugins/{plugin}", "get"),
            ("/v1/plugins/{plugin}", "delete"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/push", "put"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/push", "get"),
            ("/v1/topics/{topic}/subscriptions/{subscription}/push", "delete"),
        ];
        let paths = description["paths"].as_object().unwrap();
        let described: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(described, operations.len(), "{paths:?}");
        for (path, method) in operations {
            let operation = &paths[path][method];
            assert!(operation["summary"].is_string() && operation["description"].is_string(), "{operation}");
            let names: Vec<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["name"].as_str().unwrap())
                .collect();
            let in_path = path.split(['{', '}']).skip(1).step_by(2);
            in_path.for_each(|name| assert!(names.contains(&name), "{name} of {path} in {names:?}"));
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200") || responses.contains_key("204"), "{method} {path}");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ProblemDetails", "{method} {path} {status}");
            }
        }
        let schemas = description["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("ProblemDetails") && schemas.contains_key("Published"), "{schemas:?}");
        every_reference_is_there(&description, &description);
        // Two types of one name would be one schema.
        assert_eq!(schemas["Outcome"]["enum"][0], "stored", "{}", schemas["Outcome"]);
        assert_eq!(schemas["SettleOutcome"]["enum"], json!(["done", "refused"]));
    })
    .await;
}

/// What an operation says of its parameter of this name.
fn parameter<'a>(operation: &'a Value, name: &str) -> &'a Value {
    let parameters = operation["parameters"].as_array().unwrap();
    &parameters.iter().find(|it| it["name"] == name).unwrap()["schema"]
}

#[tokio::test]
async fn the_description_says_which_numbers_and_bodies_are_taken() {
    against(1, async |engine| {
        let description = engine.get("/openapi.json").await.json();
        let events = &description["paths"]["/v1/topics/{topic}/events"];
        let (post, get) = (&events["post"], &events["get"]);
        let max = parameter(get, "max");
        assert_eq!((&max["minimum"], &max["maximum"]), (&json!(1), &json!(10_000)), "{max}");
        assert_eq!(parameter(post, "partition")["maximum"], 65_535);
        let stream = &description["paths"]["/v1/topics/{topic}/stream"]["get"];
        for operation in [get, stream] {
            assert!(parameter(operation, "partition")["pattern"].is_string());
        }
        let bodies = &post["requestBody"]["content"];
        let cloud_event = json!({"$ref": "#/components/schemas/CloudEvent"});
        assert_eq!(bodies["application/cloudevents+json"]["schema"], cloud_event);
        let batch = &bodies["application/cloudevents-batch+json"]["schema"];
        assert_eq!((&batch["type"], &batch["items"]), (&json!("array"), &cloud_event));
        let bytes = &bodies["application/octet-stream"]["schema"];
        let bytes = description.pointer(bytes["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
        assert_eq!(bytes["type"], "string", "no list of numbers");
        let cloud_event = &description["components"]["schemas"]["CloudEvent"];
        assert_eq!(cloud_event["required"], json!(["specversion", "id", "source", "type"]));
        assert_eq!(cloud_event["properties"]["source"]["format"], "uri-reference");
        assert!(cloud_event["propertyNames"]["pattern"].is_string(), "{cloud_event}");
    })
    .await;
}

fn every_reference_is_there(whole: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                assert!(whole.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            members.values().for_each(|member| every_reference_is_there(whole, member));
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| every_reference_is_there(whole, element))
        }
        _ => {}
    }
}
