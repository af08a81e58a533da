use super::*;
use crate::config::units::{ByteSize, HumanDuration};

fn schema() -> Json {
    serde_json::from_str(&json_schema()).unwrap()
}

/// Whether `schema` allows `value`. Knows the words that [`Writer`] uses, and no others.
fn allows(root: &Json, schema: &Json, value: &Json) -> bool {
    schema
        .as_object()
        .unwrap()
        .iter()
        .all(|(word, rule)| match word.as_str() {
            "type" => match rule.as_str().unwrap() {
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                other => panic!("type {other}"),
            },
            "anyOf" => {
                let schemas = rule.as_array().unwrap();
                schemas.iter().any(|schema| allows(root, schema, value))
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minItems" => {
                let entries = value.as_array();
                entries.is_none_or(|entries| entries.len() as u64 >= rule.as_u64().unwrap())
            }
            "pattern" => value
                .as_str()
                .is_none_or(|text| matches(rule.as_str().unwrap(), text)),
            "items" => {
                let mut entries = value.as_array().into_iter().flatten();
                entries.all(|entry| allows(root, rule, entry))
            }
            "properties" => value.as_object().into_iter().flatten().all(|(key, value)| {
                rule.get(key)
                    .is_none_or(|schema| allows(root, schema, value))
            }),
            "additionalProperties" => {
                let mut keys = value.as_object().into_iter().flat_map(Map::keys);
                keys.all(|key| schema["properties"].get(key).is_some())
            }
            "required" => rule.as_array().unwrap().iter().all(|key| {
                let value = value.get(key.as_str().unwrap());
                value.is_some_and(|value| !value.is_null())
            }),
            "$ref" => allows(root, &root["definitions"]["reference"], value),
            "$schema" | "title" | "description" | "default" | "definitions" => true,
            other => panic!("{other} in {schema}"),
        })
}

/// `tests/deploy/run` matches with a real engine.
fn matches(pattern: &str, text: &str) -> bool {
    if pattern == units::duration_pattern() {
        text.parse::<HumanDuration>().is_ok()
    } else if pattern == units::size_pattern() {
        text.parse::<ByteSize>().is_ok()
    } else {
        assert_eq!(pattern, r"\$\{|^file:");
        text.contains("${") || text.starts_with("file:")
    }
}

/// The places of the example, each with its schema. Of a list these are the places of its entries, too.
fn places(schema: &Json, example: &Value, place: Place, found: &mut Vec<(Place, Json)>) {
    found.push((place.clone(), schema.clone()));
    let schemas: Vec<&Json> = match schema.get("anyOf") {
        Some(alternatives) => alternatives.as_array().unwrap().iter().collect(),
        None => vec![schema],
    };
    for schema in schemas {
        for (key, schema) in schema
            .get("properties")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
        {
            let absent = Value::Null;
            let example = example.get(key.as_str()).unwrap_or(&absent);
            places(schema, example, place.member(key), found);
        }
        for (index, entry) in example.as_sequence().into_iter().flatten().enumerate() {
            if let Some(items) = schema.get("items") {
                places(items, entry, place.entry(index), found);
            }
        }
    }
}

fn all_places() -> (Oracle, Json, Vec<(Place, Json)>) {
    let example: Value = serde_yaml::from_str(EXAMPLE).unwrap();
    let schema = schema();
    let mut found = Vec::new();
    places(&schema, &example, Place::root(), &mut found);
    found.remove(0);
    (Oracle::new(example), schema, found)
}

/// Other values than those that the schema is made with.
const VALUES: [&str; 24] = [
    "true",
    "false",
    "0",
    "1",
    "2",
    "77",
    "5000",
    "100000000",
    "-1",
    "0.25",
    "auto",
    "off",
    "none",
    "text",
    "json",
    "primary",
    "epoll",
    "3s",
    "750ms",
    "40MiB",
    "[]",
    "{}",
    "[error]",
    "{error: 0.5}",
];

#[test]
fn the_example_is_allowed_and_unknown_keys_are_not() {
    let schema = schema();
    let example: Json = serde_yaml::from_str(EXAMPLE).unwrap();
    assert!(allows(&schema, &schema, &example));
    for pointer in [
        "",
        "/limits",
        "/timeouts",
        "/pool",
        "/breaker",
        "/dns",
        "/tls",
        "/admin",
        "/keys/0",
        "/keys/0/outbound/1",
    ] {
        let mut wrong = example.clone();
        wrong.pointer_mut(pointer).unwrap()["prot"] = 1.into();
        assert!(!allows(&schema, &schema, &wrong), "{pointer}");
    }
}

/// What the parser accepts the schema allows. The reverse holds for plain values: the schema does not know
/// the bounds of sizes, the forms of texts, nor what of two keys contradicts each other.
#[test]
fn the_schema_and_the_parser_agree() {
    let (oracle, root, places) = all_places();
    assert!(places.len() > 60, "{}", places.len());
    for (place, schema) in places {
        let is_size = schema.to_string().contains("KiB");
        for text in VALUES {
            let value: Value = serde_yaml::from_str(text).unwrap();
            let json = serde_json::to_value(&value).unwrap();
            let is_plain = (value.is_number() && !is_size) || value.is_bool();
            let is_accepted = oracle.accepts(&place, value);
            let is_allowed = allows(&root, &schema, &json);
            let agree = is_allowed == is_accepted || (is_allowed && !is_plain);
            assert!(agree, "{}: {text}: {schema:#}", place.path());
        }
    }
}

/// Where this fails for a new key: give it a valid value in the example or in what its parser expects,
/// after “such as”.
#[test]
fn every_key_has_a_type() {
    let (_, _, places) = all_places();
    for (place, schema) in places {
        let words = ["type", "anyOf", "enum", "const"];
        let has_type = words.iter().any(|word| schema.get(word).is_some());
        assert!(has_type, "{}: {schema:#}", place.path());
        let is_empty = schema
            .get("anyOf")
            .is_some_and(|schemas| schemas == &json!([]));
        assert!(!is_empty, "{}: {schema:#}", place.path());
    }
}

#[test]
fn a_key_has_its_words_bounds_default_and_comment() {
    let schema = schema();
    let property = |path: &str| schema.pointer(&format!("/properties/{path}")).unwrap();
    assert_eq!(
        property("driver")["anyOf"][0]["enum"],
        json!(["auto", "io_uring", "epoll"])
    );
    let port = property("port");
    let number = json!({ "type": "integer", "minimum": 0, "maximum": 65535 });
    assert_eq!(port["anyOf"][0], number);
    assert_eq!(port["default"], 3000);
    let description = port["description"].as_str().unwrap();
    assert_eq!(
        description,
        "The address to listen on. Port 0 takes any free port.\n\nExpected: a number from 0 to 65535"
    );
    let breaker = &property("breaker")["anyOf"][0]["properties"];
    let failures = breaker["failures"]["description"].as_str().unwrap();
    assert!(
        failures.starts_with("consecutive failures that open it"),
        "{failures}"
    );
    assert!(property("modify_envelope_header").is_object());
    let listener = &property("listen")["anyOf"][0]["items"]["anyOf"][0];
    let description = listener["description"].as_str().unwrap();
    assert!(
        description.contains(r#"{address: unix:/run/sentry-mirror.sock, mode: "0660"}]"#),
        "{description}"
    );
    // The example has no listener, so its keys have no comment.
    assert_eq!(
        listener["properties"]["address"]["description"],
        "Expected: an address such as 0.0.0.0:3443, [::]:3443 or unix:/run/sentry-mirror.sock"
    );
}

/// The example has no listener.
#[test]
fn the_keys_of_a_listener_are_known() {
    let root = schema();
    let listen = &root["properties"]["listen"];
    for (text, is_allowed) in [
        ("[]", true),
        ("[{address: 'unix:/a', mode: '0600'}]", true),
        (
            "[{address: '0.0.0.0:1', proxy_protocol: ['10.0.0.0/8', '::1']}]",
            true,
        ),
        (
            "[{address: '0.0.0.0:1', tls: {cert_file: /c, key_file: /k, client_ca_file: /a, min_version: 1.3}}]",
            true,
        ),
        (
            "[{address: '0.0.0.0:1', tls: {certificates: [{cert_file: /c, key_file: /k}], min_version: '1.2'}}]",
            true,
        ),
        ("[{address: '0.0.0.0:1', tls: {cert_file: /c}}]", false),
        ("[{address: '0.0.0.0:1', tls: {certificates: [/c]}}]", false),
        ("[{adress: '0.0.0.0:1'}]", false),
        ("[{mode: '0600'}]", false),
        ("['0.0.0.0:1']", false),
    ] {
        let value: Json = serde_yaml::from_str(text).unwrap();
        assert_eq!(allows(&root, listen, &value), is_allowed, "{text} {listen}");
    }
}
