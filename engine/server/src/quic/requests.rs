//! A request stream: one question, perhaps an artefact in chunks, one answer.
//!
//! It owns the bound on artefacts in memory and the request's deadline. It must not know what requests mean.

use std::{future::Future, time::Duration};

use bytes::{Bytes, BytesMut};
use levada_broker::{Broker, Principal};
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::FrameType,
    limits::ARTEFACT_BYTES_MAX,
    request::{Opened, Request, RequestEnvelope, Response, ResponseEnvelope},
};
use tokio::{sync::Semaphore, time};

use super::{
    frames::FrameReader,
    stream::{Failure, Stream},
};
use crate::{metrics::Process, wire_error};

/// What a request needs beside the broker.
pub(super) struct Context<'a> {
    pub(super) broker: &'a Broker,
    pub(super) principal: &'a Principal,
    /// One permit for each artefact that may be in memory.
    pub(super) uploads: &'a Semaphore,
    pub(super) upload_timeout: Duration,
    /// The packet size in force on the asking connection.
    pub(super) mtu: u16,
}

/// Answers one request.
pub(super) async fn serve(
    context: Context<'_>,
    envelope: RequestEnvelope,
    stream: &mut Stream,
) -> Result<(), Failure> {
    let RequestEnvelope { id, deadline_ms, request } = envelope;
    let response = within(deadline_ms, respond(context, request, &mut stream.frames)).await?;
    stream.answer(&Opened::Response(ResponseEnvelope { id, response })).await
}

/// Gives up at the client's deadline; what was begun in the broker may still take effect.
async fn within(
    deadline_ms: u32,
    answer: impl Future<Output = Result<Response, Failure>>,
) -> Result<Response, Failure> {
    if deadline_ms == 0 {
        return answer.await;
    }
    let deadline = Duration::from_millis(u64::from(deadline_ms));
    time::timeout(deadline, answer).await.unwrap_or_else(|_| {
        let message = format!("the request took longer than its deadline of {deadline_ms} ms");
        Ok(Response::Refused(Refusal::new(ErrorCode::DeadlineExceeded, message)))
    })
}

async fn respond(
    context: Context<'_>,
    request: Request,
    frames: &mut FrameReader,
) -> Result<Response, Failure> {
    let answer = match request {
        Request::DeployPlugin { size, .. } => {
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            if len > ARTEFACT_BYTES_MAX {
                let message = format!("the artefact is {size} bytes, the limit is {ARTEFACT_BYTES_MAX}");
                return Ok(Response::Refused(Refusal::new(ErrorCode::PluginTooLarge, message)));
            }
            let _permit = context.uploads.acquire().await.expect("the semaphore is never closed");
            let upload = time::timeout(context.upload_timeout, receive(frames, len)).await;
            let artefact = upload.map_err(|_| {
                let message = format!("the artefact took longer than {:?} to arrive", context.upload_timeout);
                Failure::refused(ErrorCode::DeadlineExceeded, message)
            })??;
            context.broker.request(context.principal, request, Some(artefact)).await
        }
        other => context.broker.request(context.principal, other, None).await,
    };
    Ok(match answer {
        Ok(Response::Info(mut info)) => {
            info.mtu = context.mtu;
            Process::now().describe(&mut info);
            Response::Info(info)
        }
        Ok(response) => response,
        Err(error) => Response::Refused(wire_error::refusal(&error)),
    })
}

/// Receives chunks until `len` bytes are there. Memory grows with what came.
async fn receive(frames: &mut FrameReader, len: usize) -> Result<Bytes, Failure> {
    let mut artefact = BytesMut::new();
    while artefact.len() < len {
        let Some(frame) = frames.next().await? else {
            let message = format!("expected an artefact of {len} bytes, got {}", artefact.len());
            return Err(Failure::refused(ErrorCode::Malformed, message));
        };
        if frame.kind != FrameType::Chunk {
            return Err(Failure::unexpected(frame.kind, "a chunk frame"));
        }
        if frame.payload.len() > len - artefact.len() {
            let got = artefact.len() + frame.payload.len();
            let message = format!("expected an artefact of {len} bytes, got {got} or more");
            return Err(Failure::refused(ErrorCode::Malformed, message));
        }
        artefact.extend_from_slice(&frame.payload);
    }
    Ok(artefact.freeze())
}
