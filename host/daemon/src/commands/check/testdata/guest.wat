(component
  (import "cofferdam:plugin/types@0.1.0" (instance $types
    (type $event' (record
      (field "id" string) (field "subject" string) (field "headers" (list (tuple string string)))
      (field "data" (list u8)) (field "timestamp" u64)))
    (export "event" (type (eq $event')))
    (type $retry' (record (field "reason" string) (field "after-ms" (option u64))))
    (export "retry" (type $retry (eq $retry')))
    (type $failure' (variant (case "retry" $retry) (case "reject" string)))
    (export "failure" (type (eq $failure')))))
  (alias export $types "event" (type $event))
  (alias export $types "failure" (type $failure))
  (;imports;)
  (core module $main
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) (i32.const 0)))
  (core instance $main (instantiate $main))
  (func $handle (param "event" $event) (result (result (error $failure)))
    (canon lift (core func $main "handle")
      (memory (core memory $main "memory")) (realloc (core func $main "realloc"))))
  (instance $handler (export "handle" (func $handle)))
  (export "cofferdam:plugin/handler@0.1.0" (instance $handler)))
