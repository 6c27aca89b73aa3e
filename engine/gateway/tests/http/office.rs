//! An engine with principals, and its administrator.

use levada_broker::{Credentials, Principal};
use levada_protocol::{
    request::{CreatePrincipal, NewToken, Quotas, Request, Response},
    token::Token,
};
use serde_json::Value;

use crate::support::{Answer, Engine};

/// The administrator of an engine, made by a local caller.
pub(crate) struct Office<'a> {
    engine: &'a Engine,
    pub(crate) admin: Principal,
}

impl<'a> Office<'a> {
    pub(crate) async fn open(engine: &'a Engine) -> Self {
        let token = create(engine, &Principal::Local, "boss", &["admin"]).await;
        let token = Some(Token::parse(&token).unwrap());
        let admin = engine.broker.authenticate(&Credentials { token, ..Credentials::default() }).unwrap();
        Self { engine, admin }
    }

    /// The token of a new principal who may do this.
    pub(crate) async fn token(&self, name: &str, permissions: &[&str]) -> String {
        create(self.engine, &self.admin, name, permissions).await
    }

    /// Sends JSON with a principal's token.
    pub(crate) async fn send(&self, line: &str, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.engine.send(line, &headers, body.as_bytes()).await
    }

    pub(crate) async fn revoke(&self, token: &str) {
        let id = Token::parse(token).unwrap().id();
        self.engine.broker.request(&self.admin, Request::RevokeToken { id }, None).await.unwrap();
    }
}

async fn create(engine: &Engine, by: &Principal, name: &str, permissions: &[&str]) -> String {
    let request = Request::CreatePrincipal(CreatePrincipal {
        name: name.parse().unwrap(),
        permissions: permissions.iter().map(|line| line.parse().unwrap()).collect(),
        certificates: Vec::new(),
        quotas: Quotas::default(),
        token: Some(NewToken::default()),
    });
    match engine.broker.request(by, request, None).await.unwrap() {
        Response::Principal { issued: Some(issued), .. } => issued.token,
        other => panic!("{other:?}"),
    }
}
