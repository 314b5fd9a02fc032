//! Several endpoints as one.

use std::{sync::Arc, time::Duration};

use cofferdam_inference::{
    BackOff, Breaker, BreakerState, ChatRequest, Counters, Faults, Kind, Late, Member, ModelConfig, Pool,
    PoolConfig, Repeat, Served, Work,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    config,
    server::{DONE, STOP, Server, Step, answer, piece, response, send, stream, stream_head},
};

/// Long enough to be seen, and never waited for.
const LONG: Duration = Duration::from_secs(1000);

/// The model `m` at all `servers`, with no pauses to speak of.
fn over(servers: &[&Server], concurrency: usize) -> PoolConfig {
    let names: Vec<String> = (1..=servers.len()).map(|number| format!("gpu-{number}")).collect();
    let members = servers.iter().zip(&names).map(|(server, name)| {
        let mut endpoint = config(server);
        endpoint.name.clone_from(name);
        Member { endpoint, concurrency }
    });
    let served = names.iter().map(|name| Served { endpoint: name.clone(), model: None });
    let pause = Duration::from_millis(1);
    PoolConfig {
        endpoints: members.collect(),
        models: vec![ModelConfig { name: "m".into(), concurrency: 100, served: served.collect() }],
        back_off: BackOff { first: pause, max: pause },
        breaker: Breaker { failures: 100, pause: LONG, max_pause: LONG, ..Breaker::default() },
        ..PoolConfig::default()
    }
}

fn request() -> ChatRequest {
    ChatRequest::new("m", "hello")
}

fn of(pool: &Pool, number: usize) -> Counters {
    pool.statistics().endpoints[number - 1].counted.clone()
}

fn running_and_waiting(pool: &Pool) -> usize {
    let model = &pool.statistics().models[0];
    model.running + model.waiting
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

fn error(status: &str) -> Vec<Step> {
    vec![response(status, "", "")]
}

#[tokio::test]
async fn requests_go_where_there_is_least_to_do() {
    let told = Arc::new(Notify::new());
    let wait = Step::Await(told.clone());
    let held = Server::saying(vec![wait, answer("held")]).await;
    let free = Server::saying(vec![answer("free")]).await;
    let pool = Pool::new(over(&[&held, &free], 10)).unwrap();
    let first = tokio::spawn({
        let pool = pool.clone();
        async move { pool.complete(&request()).await.unwrap().content }
    });
    until(|| held.seen().len() == 1).await;
    for _ in 0..5 {
        assert_eq!(pool.complete(&request()).await.unwrap().content, "free");
    }
    told.notify_one();
    assert_eq!(first.await.unwrap(), "held");
    assert_eq!((of(&pool, 1).answers, of(&pool, 2).answers), (1, 5));
}

#[tokio::test]
async fn an_endpoint_gets_no_more_at_a_time_than_it_takes_and_the_rest_waits_in_line() {
    for concurrency in [1, 2] {
        let told = Arc::new(Notify::new());
        let wait = told.clone();
        let server = Server::start(move |number, _| match number < concurrency {
            true => vec![Step::Await(wait.clone()), answer("Hello.")],
            false => vec![answer("Hello.")],
        })
        .await;
        let pool = Pool::new(over(&[&server], concurrency)).unwrap();
        let mut asked = JoinSet::new();
        for number in 0..6 {
            let asker = pool.clone();
            asked.spawn(async move { asker.complete(&ChatRequest::new("m", number.to_string())).await });
            // In this order.
            until(|| running_and_waiting(&pool) == number + 1).await;
        }
        until(|| server.seen().len() == concurrency).await;
        let seen = pool.statistics();
        assert_eq!((seen.endpoints[0].outstanding, seen.models[0].running), (concurrency, concurrency));
        assert_eq!(seen.models[0].waiting, 6 - concurrency);
        (0..concurrency).for_each(|_| told.notify_one());
        while let Some(answered) = asked.join_next().await {
            answered.unwrap().unwrap();
        }
        let order = server.seen();
        let order: Vec<_> =
            order.iter().map(|seen| seen.body["messages"][0]["content"].as_str().unwrap()).collect();
        // Of two at a time, who is there first is not ours to say.
        assert!(concurrency > 1 || order == ["0", "1", "2", "3", "4", "5"], "{order:?}");
        let seen = pool.statistics();
        let model = &seen.models[0];
        assert_eq!((seen.endpoints[0].outstanding, model.running, model.waiting), (0, 0, 0));
        assert_eq!((model.counted.tokens_in, model.counted.tokens_out), (30, 42));
    }
}

#[tokio::test]
async fn what_was_not_worked_is_asked_elsewhere() {
    let good = Server::saying(vec![answer("Hello.")]).await;
    for status in ["429 Too Many Requests", "503 Service Unavailable", "401 Unauthorized"] {
        let bad = Server::saying(error(status)).await;
        let pool = Pool::new(over(&[&bad, &good], 1)).unwrap();
        assert_eq!(pool.complete(&request()).await.unwrap().content, "Hello.", "{status}");
        assert_eq!((of(&pool, 1).failures.values().sum::<u64>(), of(&pool, 2).answers), (1, 1), "{status}");
        let counted = of(&pool, 2);
        assert_eq!((counted.retries, counted.repeats), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn what_may_have_been_worked_is_asked_again_only_where_that_is_wanted() {
    let good = Server::saying(vec![answer("Hello.")]).await;
    for (what, steps) in
        [("an error", error("500 Internal Server Error")), ("a connection that broke", vec![])]
    {
        let bad = Server::saying(steps).await;
        let strict = Pool::new(over(&[&bad, &good], 1)).unwrap();
        let failure = strict.complete(&request()).await.unwrap_err();
        assert_eq!(failure.work, Work::Unknown, "{what}: {failure}");
        assert_eq!(bad.seen().len(), 1, "{what}");

        let eager = PoolConfig { repeat: Repeat::Unknown, ..over(&[&bad, &good], 1) };
        let eager = Pool::new(eager).unwrap();
        assert_eq!(eager.complete(&request()).await.unwrap().content, "Hello.", "{what}");
        let counted = of(&eager, 2);
        assert_eq!((counted.retries, counted.repeats), (1, 1), "{what}");
    }
}

#[tokio::test]
async fn what_is_the_requests_own_fault_is_not_asked_again() {
    let good = Server::saying(vec![answer("Hello.")]).await;
    let bad = Server::saying(error("400 Bad Request")).await;
    let eager = PoolConfig { repeat: Repeat::Unknown, ..over(&[&bad, &good], 1) };
    let failure = Pool::new(eager).unwrap().complete(&request()).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(good.seen().is_empty());
}

#[tokio::test]
async fn one_endpoint_is_asked_again_after_a_pause_and_no_more_often_than_allowed() {
    let moody = Server::start(|number, _| match number {
        0 | 1 => error("503 Service Unavailable"),
        _ => vec![answer("Hello.")],
    })
    .await;
    let pool = Pool::new(over(&[&moody], 1)).unwrap();
    assert_eq!(pool.complete(&request()).await.unwrap().content, "Hello.");
    assert_eq!(of(&pool, 1).retries, 2);

    let never = Server::saying(error("503 Service Unavailable")).await;
    let pool = Pool::new(PoolConfig { attempts: 3, ..over(&[&never], 1) }).unwrap();
    let failure = pool.complete(&request()).await.unwrap_err();
    assert_eq!((failure.kind.as_str(), never.seen().len()), ("overloaded", 3));
}

#[tokio::test]
async fn an_endpoint_where_a_request_will_never_do_is_not_tried_again() {
    let keyless = Server::saying(error("401 Unauthorized")).await;
    let missing =
        Server::saying(vec![response("404 Not Found", "", "{\"error\": \"model m not found\"}")]).await;
    let pool = Pool::new(PoolConfig { attempts: 9, ..over(&[&keyless, &missing], 1) }).unwrap();
    let failure = pool.complete(&request()).await.unwrap_err();
    assert!(matches!(failure.kind, Kind::Unauthorized | Kind::ModelMissing), "{failure}");
    assert_eq!((keyless.seen().len(), missing.seen().len()), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_wants_to_be_left_alone_is() {
    let busy = Server::saying(vec![response("429 Too Many Requests", "retry-after: 500\r\n", "")]).await;
    let free = Server::saying(vec![answer("Hello.")]).await;
    let pool = Pool::new(over(&[&busy, &free], 1)).unwrap();
    for _ in 0..5 {
        pool.complete(&request()).await.unwrap();
    }
    assert_eq!((busy.seen().len(), free.seen().len()), (1, 5));
    let rests = pool.statistics().endpoints[0].rests_for;
    assert!(rests > Duration::from_secs(400) && rests <= Duration::from_secs(500), "{rests:?}");
}

#[tokio::test]
async fn whoever_can_get_no_answer_in_time_is_told_so_at_once() {
    let busy =
        Server::saying(vec![response("429 Too Many Requests", "retry-after: 500\r\n", "\"slow down\"")])
            .await;
    let pool = Pool::new(over(&[&busy], 1)).unwrap();
    let failure = pool.complete(&request()).await.unwrap_err();
    let own = (Kind::Overloaded, Work::NotWorked, Some(Duration::from_secs(500)));
    assert_eq!((failure.kind, failure.work, failure.retry_after), own, "its own try says more");

    let failure = pool.complete(&request()).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Overloaded, Work::NotSent));
    assert!(failure.retry_after.is_some_and(|after| after > Duration::from_secs(400)), "{failure}");
    let told = failure.to_string();
    let wanted = "no endpoint with model \"m\": nothing was sent: all its endpoints are left alone, gpu-1 the shortest, for ";
    assert!(told.starts_with(wanted), "{told}");
    assert!(
        told.ends_with(
            ": it answered 429 Too Many Requests: \"slow down\"; it wants to be left alone for 500s"
        ),
        "{told}"
    );
    assert_eq!(busy.seen().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_told_so_and_soon() {
    let down = Server::saying(vec![]).await;
    let mut config = over(&[&down], 10);
    config.breaker = Breaker { failures: 5, pause: LONG, max_pause: LONG, ..Breaker::default() };
    // Nobody listens at a port that was let go.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.endpoints[0].endpoint.url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let pool = Pool::new(config).unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..32 {
        let pool = pool.clone();
        asked.spawn(async move { pool.complete(&request()).await });
    }
    while let Some(told) = asked.join_next().await {
        let failure = told.unwrap().unwrap_err();
        assert_eq!((failure.kind, failure.work), (Kind::Unreachable, Work::NotSent), "{failure}");
    }
    assert_eq!(pool.statistics().endpoints[0].breaker, BreakerState::Open);
}

#[tokio::test]
async fn a_broken_endpoint_is_left_alone_and_tried_by_one_request() {
    let broken = Server::start(|number, _| match number {
        0..3 => error("500 Internal Server Error"),
        _ => vec![answer("Hello.")],
    })
    .await;
    let good = Server::saying(vec![answer("Hello.")]).await;
    let breaker = Breaker { failures: 3, pause: LONG, max_pause: LONG, ..Breaker::default() };
    let config = PoolConfig { repeat: Repeat::Unknown, breaker, ..over(&[&broken, &good], 10) };
    let pool = Pool::new(config).unwrap();
    for _ in 0..20 {
        pool.complete(&request()).await.unwrap();
    }
    assert_eq!(broken.seen().len(), 3);
    assert_eq!(pool.statistics().endpoints[0].breaker, BreakerState::Open);

    let moody = Server::start(|number, _| match number {
        0..3 => error("500 Internal Server Error"),
        _ => vec![answer("Hello.")],
    })
    .await;
    let pause = Duration::from_millis(1);
    let breaker = Breaker { failures: 2, pause, max_pause: pause, ..Breaker::default() };
    let pool = Pool::new(PoolConfig { breaker, ..over(&[&moody], 10) }).unwrap();
    for _ in 0..3 {
        pool.complete(&request()).await.unwrap_err();
    }
    assert_eq!(pool.complete(&request()).await.unwrap().content, "Hello.", "after its pause");
    assert_eq!(pool.statistics().endpoints[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_endpoint_that_is_silent_to_the_deadline_of_each_request_is_left_alone() {
    for (silence, breaker) in [(Duration::from_millis(20), BreakerState::Open), (LONG, BreakerState::Closed)]
    {
        let server = Server::saying(vec![Step::Hold]).await;
        let breaker_config = Breaker { failures: 2, pause: LONG, max_pause: LONG, silence };
        let config = PoolConfig { breaker: breaker_config, patience: Duration::ZERO, ..over(&[&server], 10) };
        let pool = Pool::new(config).unwrap();
        for _ in 0..2 {
            let deadline = Some(Instant::now() + Duration::from_millis(100));
            let failure = pool.complete(&ChatRequest { deadline, ..request() }).await.unwrap_err();
            assert_eq!((failure.kind, failure.work), (Kind::Timeout(Late::Deadline), Work::Unknown));
        }
        assert_eq!(pool.statistics().endpoints[0].breaker, breaker);
        if breaker == BreakerState::Open {
            // Another request's deadline is none of this one's.
            let failure = pool.complete(&request()).await.unwrap_err();
            assert_eq!((failure.kind, failure.work), (Kind::Timeout(Late::Answer), Work::NotSent));
        }
    }
}

#[tokio::test]
async fn a_stream_holds_its_place_until_it_ends() {
    let told = Arc::new(Notify::new());
    let wait = Step::Await(told.clone());
    let server =
        Server::saying(vec![stream_head(), send(piece("Hel")), wait, send(piece("lo.")), send(STOP)]).await;
    let pool = Pool::new(over(&[&server], 1)).unwrap();
    let mut stream = pool.stream(&request()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().content, "Hel");
    assert_eq!(pool.statistics().endpoints[0].outstanding, 1);
    told.notify_one();
    assert_eq!(stream.finish().await.unwrap().content, "Hello.");
    let seen = &pool.statistics().endpoints[0];
    assert_eq!((seen.outstanding, seen.counted.answers, seen.counted.without_usage), (0, 1, 1));
    assert_eq!(seen.counted.first_token.iter().sum::<u64>(), 1);
}

#[tokio::test]
async fn a_stream_is_tried_elsewhere_until_its_first_piece_and_not_after() {
    let silent = Server::saying(stream("")).await;
    let good = Server::saying(stream(&[&piece("Hello."), STOP, DONE].concat())).await;
    let eager = PoolConfig { repeat: Repeat::Unknown, ..over(&[&silent, &good], 1) };
    let pool = Pool::new(eager).unwrap();
    assert_eq!(pool.stream(&request()).await.unwrap().finish().await.unwrap().content, "Hello.");
    assert_eq!(of(&pool, 1).failures["truncated"], 1);

    let breaks = Server::saying(stream(&piece("Hel"))).await;
    let good = Server::saying(stream(&[&piece("Hello."), STOP, DONE].concat())).await;
    let eager = PoolConfig { repeat: Repeat::Unknown, ..over(&[&breaks, &good], 1) };
    let pool = Pool::new(eager).unwrap();
    let failure = pool.stream(&request()).await.unwrap().finish().await.unwrap_err();
    assert_eq!((failure.kind, good.seen().len()), (Kind::Truncated, 0));
    assert_eq!(pool.statistics().endpoints[0].outstanding, 0);
}

#[tokio::test]
async fn whoever_goes_gives_its_place_and_its_turn_back() {
    let server = Server::start(|number, _| match number {
        0 => vec![Step::Hold],
        _ => vec![answer("Hello.")],
    })
    .await;
    let pool = Pool::new(over(&[&server], 1)).unwrap();
    let ask = |pool: Pool| tokio::spawn(async move { pool.complete(&request()).await });
    let held = ask(pool.clone());
    until(|| server.seen().len() == 1).await;
    let (impatient, patient) = (ask(pool.clone()), ask(pool.clone()));
    until(|| pool.statistics().models[0].waiting == 2).await;
    impatient.abort();
    until(|| pool.statistics().models[0].waiting == 1).await;
    held.abort();
    server.client_gone().await;
    assert_eq!(patient.await.unwrap().unwrap().content, "Hello.");
    assert_eq!(of(&pool, 1).failures["cancelled"], 1);
}

#[tokio::test]
async fn a_stopped_pool_sends_no_one_away_without_a_word() {
    let told = Arc::new(Notify::new());
    let server = Server::saying(vec![Step::Await(told.clone()), answer("Hello.")]).await;
    let pool = Pool::new(over(&[&server], 1)).unwrap();
    let ask = |pool: Pool| tokio::spawn(async move { pool.complete(&request()).await });
    let worked = ask(pool.clone());
    until(|| server.seen().len() == 1).await;
    let waits = ask(pool.clone());
    until(|| pool.statistics().models[0].waiting == 1).await;
    pool.close();
    for failure in [waits.await.unwrap().unwrap_err(), pool.complete(&request()).await.unwrap_err()] {
        assert_eq!((failure.kind, failure.work), (Kind::Cancelled, Work::NotSent));
        assert_eq!(failure.detail, "nothing is sent any more: it is being stopped");
    }
    told.notify_one();
    assert_eq!(worked.await.unwrap().unwrap().content, "Hello.", "what is being worked goes on");
}

#[tokio::test]
async fn waiting_counts_towards_the_deadline() {
    let server = Server::saying(vec![Step::Hold]).await;
    let pool = Pool::new(over(&[&server], 1)).unwrap();
    let held = tokio::spawn({
        let pool = pool.clone();
        async move { pool.complete(&request()).await }
    });
    until(|| server.seen().len() == 1).await;
    let soon = ChatRequest { deadline: Some(Instant::now() + Duration::from_millis(50)), ..request() };
    let failure = pool.complete(&soon).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::Timeout(Late::Deadline), Work::NotSent));
    assert_eq!(
        failure.detail,
        "no endpoint had a place for it by its deadline; add endpoints, or give it more time"
    );
    assert_eq!(server.seen().len(), 1);
    held.abort();
}

#[tokio::test]
async fn an_endpoint_may_call_a_model_otherwise() {
    let server = Server::saying(vec![answer("Hello.")]).await;
    let mut config = over(&[&server], 1);
    config.models[0].served[0].model = Some("org/m-8b-instruct".into());
    let pool = Pool::new(config).unwrap();
    pool.complete(&request()).await.unwrap();
    assert_eq!(server.seen()[0].body["model"], "org/m-8b-instruct");

    let failure = pool.complete(&ChatRequest::new("other", "hello")).await.unwrap_err();
    assert_eq!((failure.kind, failure.work), (Kind::ModelMissing, Work::NotSent));
    let wanted = "no endpoint with model \"other\": no endpoint serves it; there are \"m\"";
    assert_eq!(failure.to_string(), wanted);
}

#[tokio::test]
async fn what_is_wrong_with_a_pool_is_told_at_once() {
    let server = Server::saying(vec![]).await;
    let mut config = over(&[&server, &server], 0);
    config.endpoints[1].endpoint.name = "gpu-1".into();
    config.endpoints[1].endpoint.url = "gpu".into();
    config.models[0].concurrency = 0;
    config.models.push(ModelConfig { name: "m".into(), concurrency: 1, served: vec![] });
    config.attempts = 0;
    let Faults(faults) = Pool::new(config).unwrap_err();
    assert_eq!(
        faults,
        [
            "endpoint \"gpu-1\": a concurrency of 0 asks nothing; say 1 or more",
            "there are two endpoints \"gpu-1\"; rename one",
            "endpoint \"gpu-1\": a concurrency of 0 asks nothing; say 1 or more",
            "model \"m\": a concurrency of 0 asks nothing; say 1 or more",
            "model \"m\": there is no endpoint \"gpu-2\"",
            "there are two models \"m\"; put their endpoints together",
            "model \"m\" is served nowhere; name an endpoint",
            "attempts of 0 ask nothing; say 1 or more",
            "endpoint \"gpu-1\": \"gpu\" is no http:// or https:// URL; it wants one like http://gpu-1:8000/v1",
        ]
    );
}
