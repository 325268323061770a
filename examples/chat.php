<?php
// Ask one question and print the answer as it is written. Needs php-cli and php-curl.
//
//   GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… php chat.php "What is a ledger?"

$question = implode(' ', array_slice($argv, 1)) ?: "What's the largest U.S. state by area?";
$received = '';   // what has come of the line that is not yet whole, or a refusal's body

$curl = curl_init((getenv('GATEWAY_URL') ?: 'http://127.0.0.1:8080') . '/api/chat-completions/');
curl_setopt_array($curl, [
    CURLOPT_HTTPHEADER => [
        'Content-Type: application/json',
        'Authorization: Bearer ' . getenv('GATEWAY_KEY'),
    ],
    CURLOPT_POSTFIELDS => json_encode([
        'model' => 'gpt-4o-mini',
        'messages' => [['role' => 'user', 'content' => $question]],
        'max_completion_tokens' => 300,
    ]),
    // Data come in pieces of any size: print each line as soon as it is whole.
    CURLOPT_WRITEFUNCTION => function ($curl, $data) use (&$received) {
        $received .= $data;
        if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) == 200) {
            $lines = explode("\n", $received);
            $received = array_pop($lines);
            array_map('print_event', $lines);
        }
        return strlen($data);
    },
]);

if (curl_exec($curl) === false) {
    fail(curl_error($curl));
}
$status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
if ($status != 200) {
    fail($status . ': ' . (json_decode($received, true)['error']['message'] ?? $received));
}

function print_event(string $line): void
{
    if (!str_starts_with($line, 'data: {')) {
        return;   // a blank line, a comment, or [DONE]
    }
    $chunk = json_decode(substr($line, strlen('data: ')), true);
    if (isset($chunk['error'])) {
        fail($chunk['error']['message']);
    }
    foreach ($chunk['choices'] as $choice) {
        echo $choice['delta']['content'] ?? '';
    }
    if (isset($chunk['usage'])) {
        echo "\n({$chunk['usage']['total_tokens']} tokens)\n";
    }
}

function fail(string $message): void
{
    fwrite(STDERR, $message . "\n");
    exit(1);
}
