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
            assert!(names.contains(&"topic"), "{names:?}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"));
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ProblemDetails", "{method} {path} {status}");
            }
        }
        let schemas = description["components"]["schemas"].as_object().unwrap();
        assert!(schemas.contains_key("ProblemDetails") && schemas.contains_key("Published"), "{schemas:?}");
        every_reference_is_there(&description, &description);
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
