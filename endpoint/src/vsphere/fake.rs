//! A vSphere that has files and one VM, in memory: for tests of what comes to be on a datastore, with the real client.

use super::{Capabilities, Places, VmRef, Vsphere};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use vim::client::{Client, ClientConfig, Trust};
use vim::soap;
use vim::types::{
    DatastoreSearchResults, DynamicProperty, FileInfo, ObjectContent, ObjectUpdate,
    ObjectUpdateKind, PowerState, PropertyChange, PropertyFilterSpec, PropertyFilterUpdate,
    RetrieveResult, ServiceContent, TaskInfo, TaskInfoState, UpdateSet, UserSession, VirtualDevice,
};
use vim::value::Value as _;
use vim::{Any, DatastorePath};

/// The datastore.
const DATASTORE: &str = "ds";

/// The server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By path on the datastore.
    files: Mutex<BTreeMap<String, Bytes>>,
    /// Requests that are to wait, each once.
    held: Mutex<Vec<Held>>,
    /// Requests that get no good answer, each once: as [`Held`] tells them.
    failing: Mutex<Vec<(Method, String, Failure)>>,
    vm: Mutex<Vm>,
    tasks: Mutex<Tasks>,
    /// A task ended.
    ended: Notify,
}

/// The VM, which has no devices.
#[derive(Debug, Default)]
struct Vm {
    on: bool,
    gone: bool,
}

#[derive(Debug, Default)]
struct Tasks {
    count: u64,
    done: Vec<(VmRef, TaskInfo)>,
    /// Those of them that are watched.
    told: Vec<(VmRef, TaskInfo)>,
}

/// A request of this method, to a file of whose path this is a part.
#[derive(Debug)]
struct Held {
    method: Method,
    part: String,
    came: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

/// What becomes of a request instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is done, and the connection breaks before the answer.
    Lost,
    /// It is not done, and the answer says so.
    Refused,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Hold {
    came: Option<oneshot::Receiver<()>>,
    go: Option<oneshot::Sender<()>>,
}

impl Hold {
    /// Waits until the request is there.
    pub async fn came(&mut self) {
        if let Some(came) = self.came.take() {
            came.await.unwrap();
        }
    }

    /// Has it go on.
    pub fn go(&mut self) {
        if let Some(go) = self.go.take() {
            go.send(()).unwrap();
        }
    }
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap()
}

fn reference(kind: &'static str) -> VmRef {
    VmRef::new(kind, kind.to_lowercase())
}

impl Fake {
    /// One that serves as long as the runtime runs, and a client's view of it.
    pub async fn start() -> (Self, Arc<Vsphere>) {
        let fake = Fake::default();
        let folder = tempfile::tempdir().unwrap();
        let certificate =
            crate::link::certificate::Certificate::load_or_make(folder.path()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(certificate.config.clone());
        let serving = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, fake) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request| {
                        // What was asked for is done also where who asked goes.
                        let work = tokio::spawn(fake.clone().answer(request));
                        async move {
                            let answer = work.await.unwrap();
                            answer.ok_or_else(|| io::Error::other("the answer is lost"))
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    let _broken = served.await;
                });
            }
        });
        let trust = Trust::thumbprint(&certificate.thumbprint).unwrap();
        let client = Client::connect(ClientConfig::new(url, "u", "p", trust))
            .await
            .unwrap();
        let places = Places {
            datacenter: reference("Datacenter"),
            datacenter_path: "dc".to_owned(),
            vm_folder: reference("Folder"),
            pool: reference("ResourcePool"),
            datastore: DATASTORE.to_owned(),
            browser: reference("HostDatastoreBrowser"),
            networks: BTreeMap::new(),
        };
        let vsphere = Vsphere {
            client,
            places,
            capabilities: Capabilities {
                disk_upload: true,
                ..Capabilities::default()
            },
            containers: DatastorePath::new(DATASTORE, "mooring/vch/containers"),
        };
        (fake, Arc::new(vsphere))
    }

    /// Paths of the files whose path begins so, without that beginning.
    pub fn names(&self, start: &str) -> Vec<String> {
        let files = lock(&self.0.files);
        let names = files.keys().filter_map(|path| path.strip_prefix(start));
        names.map(str::to_owned).collect()
    }

    /// Writes a file.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) {
        lock(&self.0.files).insert(path.to_owned(), content.into());
    }

    /// Has the next request of this method wait, to a file of whose path this is a part.
    pub fn hold(&self, method: Method, part: &str) -> Hold {
        let (came, has_come) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        lock(&self.0.held).push(Held {
            method,
            part: part.to_owned(),
            came,
            go: may_go,
        });
        Hold {
            came: Some(has_come),
            go: Some(go),
        }
    }

    /// The VM.
    pub fn vm() -> VmRef {
        reference("VirtualMachine")
    }

    /// Whether the VM is on; `None` where it is gone.
    pub fn is_on(&self) -> Option<bool> {
        let vm = lock(&self.0.vm);
        (!vm.gone).then_some(vm.on)
    }

    /// Has the next request of this method fail, to a file of whose path this is a part; with POST, the next call that is
    /// named so.
    pub fn fail(&self, method: Method, part: &str, how: Failure) {
        lock(&self.0.failing).push((method, part.to_owned(), how));
    }

    /// `None` where the answer is lost.
    async fn answer(self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        // A body that breaks off writes nothing.
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return Some(status(StatusCode::BAD_REQUEST));
        };
        match head.uri.path().strip_prefix("/folder/") {
            Some(path) => self.file(&head.method, path, body).await,
            None => {
                let name = soap::decode_request(&body).unwrap().name.to_string();
                let failure = self.failure(&head.method, &name);
                if failure == Some(Failure::Refused) {
                    return Some(status(StatusCode::SERVICE_UNAVAILABLE));
                }
                let answer = Response::new(Full::from(self.call(&body).await));
                failure.is_none().then_some(answer)
            }
        }
    }

    async fn file(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Option<Response<Full<Bytes>>> {
        let failure = self.failure(method, path);
        if failure == Some(Failure::Refused) {
            return Some(status(StatusCode::INTERNAL_SERVER_ERROR));
        }
        if failure.is_none() {
            self.wait(method, path).await;
        }
        let answer = self.done_to_file(method, path, body);
        failure.is_none().then_some(answer)
    }

    fn failure(&self, method: &Method, what: &str) -> Option<Failure> {
        let mut failing = lock(&self.0.failing);
        let at = failing
            .iter()
            .position(|(m, part, _)| m == method && what.contains(part.as_str()));
        at.map(|at| failing.remove(at).2)
    }

    /// Waits, where a test wants that.
    async fn wait(&self, method: &Method, path: &str) {
        let held = {
            let mut held = lock(&self.0.held);
            let at = held
                .iter()
                .position(|h| h.method == *method && path.contains(&h.part));
            at.map(|at| held.remove(at))
        };
        if let Some(held) = held {
            let _nobody_waits = held.came.send(());
            let _for_ever = held.go.await;
        }
    }

    fn done_to_file(&self, method: &Method, path: &str, body: Bytes) -> Response<Full<Bytes>> {
        let mut files = lock(&self.0.files);
        match (method.as_str(), files.get(path).cloned()) {
            ("PUT", _) => {
                files.insert(path.to_owned(), body);
                status(StatusCode::CREATED)
            }
            (_, None) => status(StatusCode::NOT_FOUND),
            ("DELETE", Some(_)) => {
                files.remove(path);
                status(StatusCode::NO_CONTENT)
            }
            ("HEAD", Some(content)) => {
                let mut answer = status(StatusCode::OK);
                let headers = answer.headers_mut();
                headers.insert(header::CONTENT_LENGTH, content.len().into());
                answer
            }
            (_, Some(content)) => Response::new(Full::from(content)),
        }
    }

    async fn call(&self, message: &[u8]) -> String {
        let call = soap::decode_request(message).unwrap();
        let name = call.name.to_string();
        match name.as_str() {
            "RetrieveServiceContent" => soap::encode_response(
                &name,
                &ServiceContent {
                    root_folder: reference("Folder"),
                    property_collector: reference("PropertyCollector"),
                    view_manager: Some(reference("ViewManager")),
                    session_manager: Some(reference("SessionManager")),
                    file_manager: Some(reference("FileManager")),
                    ..ServiceContent::default()
                },
            ),
            "Login" => soap::encode_response(&name, &UserSession::default()),
            "RetrievePropertiesEx" => {
                let specs: Vec<_> = call.children_named("specSet").collect();
                let spec = PropertyFilterSpec::from_element(specs[0]).unwrap();
                soap::encode_response(&name, &self.properties(&spec))
            }
            "PowerOnVM_Task" => {
                lock(&self.0.vm).on = true;
                soap::encode_response(&name, &self.done(None))
            }
            "PowerOffVM_Task" => {
                lock(&self.0.vm).on = false;
                soap::encode_response(&name, &self.done(None))
            }
            "ReconfigVM_Task" => soap::encode_response(&name, &self.done(None)),
            "Destroy_Task" => {
                let mut vm = lock(&self.0.vm);
                assert!(!vm.on, "a VM that runs is not destroyed");
                vm.gone = true;
                soap::encode_response(&name, &self.done(None))
            }
            "CreatePropertyCollector" => {
                soap::encode_response(&name, &reference("PropertyCollector"))
            }
            "CreateContainerView" => soap::encode_response(&name, &reference("ContainerView")),
            "DestroyView" => soap::encode_response(&name, &()),
            "CreateListView" => soap::encode_response(&name, &reference("ListView")),
            "CreateFilter" => soap::encode_response(&name, &reference("PropertyFilter")),
            "ModifyListView" => {
                for task in call.children_named("add") {
                    let task = VmRef::from_element(task).unwrap();
                    let mut tasks = lock(&self.0.tasks);
                    let at = tasks.done.iter().position(|(t, _)| *t == task);
                    let ended = at.map(|at| tasks.done.remove(at));
                    tasks.told.extend(ended);
                }
                self.0.ended.notify_one();
                soap::encode_response(&name, &Vec::<VmRef>::new())
            }
            "WaitForUpdatesEx" => soap::encode_response(&name, &Some(self.updates().await)),
            "SearchDatastore_Task" => {
                let folder = &call.child("datastorePath").unwrap().text;
                soap::encode_response(&name, &self.list(folder))
            }
            "DeleteDatastoreFile_Task" => {
                let path: DatastorePath = call.child("name").unwrap().text.parse().unwrap();
                let below = format!("{}/", path.path);
                lock(&self.0.files).retain(|p, _| *p != path.path && !p.starts_with(&below));
                soap::encode_response(&name, &self.done(None))
            }
            "MakeDirectory" => soap::encode_response(&name, &()),
            other => unreachable!("{other} is not asked for in tests"),
        }
    }

    /// Of the VM; nothing else has any.
    fn properties(&self, spec: &PropertyFilterSpec) -> Option<RetrieveResult> {
        let on = self
            .is_on()
            .filter(|_| spec.object_set[0].obj == Self::vm())?;
        let state = match on {
            true => PowerState::PoweredOn,
            false => PowerState::PoweredOff,
        };
        let values = spec.prop_set[0]
            .path_set
            .iter()
            .map(|path| DynamicProperty {
                name: path.clone(),
                val: match path.as_str() {
                    "runtime.powerState" => Any::of(&state),
                    "config.hardware.device" => Any::list::<VirtualDevice>(&[]),
                    other => unreachable!("{other} is not asked for in tests"),
                },
            });
        Some(RetrieveResult {
            token: None,
            objects: vec![ObjectContent {
                obj: Self::vm(),
                prop_set: values.collect(),
                missing_set: Vec::new(),
            }],
        })
    }

    async fn updates(&self) -> UpdateSet {
        loop {
            let told = std::mem::take(&mut lock(&self.0.tasks).told);
            if told.is_empty() {
                self.0.ended.notified().await;
                continue;
            }
            let updates = told.into_iter().map(|(task, info)| ObjectUpdate {
                kind: ObjectUpdateKind::Enter,
                obj: task,
                change_set: vec![PropertyChange {
                    name: "info".to_owned(),
                    val: Some(Any::of(&info)),
                    ..PropertyChange::default()
                }],
                missing_set: Vec::new(),
            });
            return UpdateSet {
                version: "1".to_owned(),
                filter_set: vec![PropertyFilterUpdate {
                    filter: reference("PropertyFilter"),
                    object_set: updates.collect(),
                }],
                truncated: None,
            };
        }
    }

    /// A task that has listed a folder.
    fn list(&self, folder: &str) -> VmRef {
        let path: DatastorePath = folder.parse().unwrap();
        let start = format!("{}/", path.path.trim_end_matches('/'));
        // Files, and folders that hold some.
        let found: BTreeSet<String> = self
            .names(&start)
            .iter()
            .filter_map(|name| name.split('/').next().map(str::to_owned))
            .collect();
        let found = DatastoreSearchResults {
            datastore: None,
            folder_path: Some(folder.to_owned()),
            file: found
                .into_iter()
                .map(|path| FileInfo {
                    kind: "FileInfo".to_owned(),
                    path,
                    ..FileInfo::default()
                })
                .collect(),
        };
        self.done(Some(Any::of(&found)))
    }

    /// A task that has ended well.
    fn done(&self, result: Option<Any>) -> VmRef {
        let mut tasks = lock(&self.0.tasks);
        tasks.count += 1;
        let task = VmRef::new("Task", format!("task-{}", tasks.count));
        let info = TaskInfo {
            key: task.to_string(),
            task: task.clone(),
            state: TaskInfoState::Success,
            result,
            ..TaskInfo::default()
        };
        tasks.done.push((task.clone(), info));
        task
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
