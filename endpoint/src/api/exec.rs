//! Execs.

use super::{
    JsonBody, OptionalJson, attach,
    framing::Framing,
    hijack::{Connection, Hijack},
    ok,
    query::Query,
    version::ApiVersion,
};
use crate::{
    app::App,
    containers::options,
    errors::{Error, Result},
    link::session::Wants,
};
use axum::{
    Json, Router,
    extract::{FromRequest, Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use wire::{config::Process, message::Channel};

/// The calls under `/exec` and `/containers/{id}/exec`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

/// Fields of an exec's configuration that are taken. docker-java sends `containerId`, which the path has said.
const TAKEN: &[&str] = &[
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "DetachKeys",
    "Tty",
    "Env",
    "Cmd",
    "User",
    "WorkingDir",
    "ConsoleSize",
    "Detach",
    "Container",
    "containerId",
];

async fn create(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response> {
    let container = app.containers.find(&name)?;
    let set = |field: &str| body.get(field).filter(|v| !v.is_null());
    let flag = |field: &str| set(field).and_then(Value::as_bool).unwrap_or(false);
    let text = |field: &str| set(field).and_then(Value::as_str).unwrap_or("");
    let list = |field: &str| -> Result<Vec<String>> {
        set(field).map_or(Ok(Vec::new()), |v| {
            serde_json::from_value(v.clone()).map_err(|_| {
                Error::bad(format!(
                    "invalid exec configuration: {field} must be a list of strings"
                ))
            })
        })
    };
    if flag("Privileged") {
        return Err(Error::not_yet("--privileged"));
    }
    for (field, value) in &body {
        let unset = matches!(value, Value::Null | Value::Bool(false))
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty);
        if !TAKEN.contains(&field.as_str()) && !unset {
            return Err(Error::not_yet(&format!("the exec option {field}")));
        }
    }
    let args = list("Cmd")?;
    if args.is_empty() {
        return Err(Error::bad("No exec command specified"));
    }
    let detach_keys = text("DetachKeys").to_owned();
    attach::detach_keys(&detach_keys)?;
    let size = set("ConsoleSize").map(options::size).transpose()?.flatten();
    let spec = &container.spec;
    let mut env = list("Env")?;
    let own = |entry: &str| entry.split('=').next().unwrap_or(entry).to_owned();
    for entry in &spec.config.env {
        if !env.iter().any(|given| own(given) == own(entry)) {
            env.push(entry.clone());
        }
    }
    let or = |given: &str, default: &str| {
        if given.is_empty() {
            default.to_owned()
        } else {
            given.to_owned()
        }
    };
    let process = Process {
        args,
        env,
        cwd: or(text("WorkingDir"), &spec.config.working_dir),
        user: or(text("User"), &spec.config.user),
        groups: spec.options.groups.clone(),
        tty: flag("Tty"),
        stdin: flag("AttachStdin"),
        stdin_once: true,
        size,
        cap_add: spec.options.cap_add.clone(),
        cap_drop: spec.options.cap_drop.clone(),
    };
    let wants = Wants {
        stdin: flag("AttachStdin"),
        stdout: flag("AttachStdout"),
        stderr: flag("AttachStderr"),
    };
    let exec = app
        .containers
        .exec(&container, process, wants, detach_keys)?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": exec.id }))).into_response())
}

async fn start(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Result<Response> {
    let exec = app.containers.execs().find(&id)?;
    let (parts, body) = request.into_parts();
    let OptionalJson(given) = OptionalJson::<Map<String, Value>>::from_request(
        Request::from_parts(parts.clone(), body),
        &(),
    )
    .await?;
    let given = given.unwrap_or_default();
    let flag = |field: &str| given.get(field).and_then(Value::as_bool).unwrap_or(false);
    let size = given
        .get("ConsoleSize")
        .filter(|v| !v.is_null())
        .map(options::size)
        .transpose()?
        .flatten();
    let tty = exec.process.tty;
    if flag("Detach") {
        let session = app.containers.take_exec(&exec).await?;
        app.containers
            .start_exec(&exec, &session, false, size)
            .await?;
        tokio::spawn(app.containers.clone().watch_exec(exec));
        return Ok(StatusCode::OK.into_response());
    }
    let mut request = Request::from_parts(parts, axum::body::Body::empty());
    let hijack = Hijack::of(&mut request)?.format(version, tty);
    let keys = attach::detach_keys(&exec.detach_keys)?;
    let session = app.containers.take_exec(&exec).await?;
    let (response, connection) = hijack.accept();
    if exec.wants == Wants::default() {
        // Nothing is attached: there is nothing to wait for but the start (moby, `CopyStreams`).
        tokio::spawn(async move {
            let started = app.containers.start_exec(&exec, &session, false, size);
            let (started, connection) = tokio::join!(started, connection);
            match (started, connection) {
                (Ok(_), connection) => {
                    tokio::spawn(app.containers.clone().watch_exec(exec));
                    if let Ok(mut connection) = connection {
                        let _client_is_gone = connection.shutdown().await;
                    }
                }
                (Err(error), Ok(connection)) => refuse(connection, tty, &error).await,
                (Err(_), Err(_)) => {}
            }
        });
        return Ok(response);
    }
    tokio::spawn(async move {
        // Side by side: the client's connection changes over while the guest starts the process.
        let starting = app.containers.start_exec(&exec, &session, true, size);
        let (started, connection) = tokio::join!(starting, connection);
        let events = app.containers.clone();
        match (started, connection) {
            (Ok(Some(stream)), Ok(connection)) => {
                tokio::spawn(events.watch_exec(exec.clone()));
                // The client asks for the exit code next: the answer must be there.
                let ended = async { exec.ended().await.map_or((), drop) };
                let stdio = attach::Stdio {
                    wants: exec.wants,
                    tty,
                    stdin_once: true,
                };
                let gone = attach::pump(connection, stream, stdio, &keys, ended).await;
                if gone == attach::Gone::Detached {
                    app.containers.tell(
                        &exec.container,
                        "exec_detach",
                        &[("execID", exec.id.clone())],
                    );
                }
            }
            (Err(error), Ok(connection)) => refuse(connection, tty, &error).await,
            (Ok(stream), _) => {
                // Nobody reads its output: what is kept of it would hold the process back.
                drop(stream);
                events.watch_exec(exec).await;
            }
            (Err(_), Err(_)) => {}
        }
    });
    Ok(response)
}

/// Tells the client, whose connection has changed over already, why nothing was started.
async fn refuse(mut connection: Connection, tty: bool, error: &Error) {
    let text = format!("{error}\r\n");
    let framed = Framing::of(tty).frame(Channel::Stdout, text.as_bytes());
    let _client_is_gone = connection.write_all(&framed).await;
    let _client_is_gone = connection.shutdown().await;
}

async fn resize(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let exec = app.containers.execs().find(&id)?;
    let (rows, cols) = super::containers::size(&query)?;
    let Some((session, _)) = exec.state().started.filter(|_| exec.running()) else {
        return Err(Error::conflict(format!("exec {id} is not running")));
    };
    exec.container
        .session()
        .await?
        .resize(session, rows, cols)
        .await?;
    app.containers.tell(
        &exec.container,
        "resize",
        &[("height", rows.to_string()), ("width", cols.to_string())],
    );
    Ok(StatusCode::OK)
}

async fn inspect(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response> {
    let exec = app.containers.execs().find(&id)?;
    let state = exec.state();
    let process = &exec.process;
    Ok(ok(json!({
        "ID": exec.id,
        "Running": exec.running(),
        "ExitCode": state.exit_code,
        "ProcessConfig": {
            "tty": process.tty,
            "entrypoint": process.args.first(),
            "arguments": process.args.get(1..).unwrap_or(&[]),
            "privileged": false,
            "user": process.user,
        },
        "OpenStdin": exec.wants.stdin,
        "OpenStderr": exec.wants.stderr,
        "OpenStdout": exec.wants.stdout,
        "CanRemove": state.exit_code.is_some(),
        "ContainerID": exec.container.id(),
        "DetachKeys": if exec.detach_keys.is_empty() { "" } else { &exec.detach_keys },
        "Pid": state.started.map_or(0, |(_, pid)| pid),
    })))
}
