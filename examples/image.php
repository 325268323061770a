<?php
// Order one image, wait for it, and print its URL. Needs php-cli and php-curl.
//
//   GATEWAY_URL=http://127.0.0.1:8080 GATEWAY_KEY=sk-… php image.php "A lighthouse at dusk"

const WAIT_MAX_S = 120;

$prompt = implode(' ', array_slice($argv, 1)) ?: 'A lighthouse at dusk, cinematic composition';
$job = call('/api/texttoimage/', [
    'model' => 'realvision',
    'prompt' => $prompt,
    'width' => 1152,
    'height' => 768,
]);
if ($job['status'] !== 'success') {
    fail('the image was not accepted');
}

// Any status but success and error means that the job still runs.
for ($waited_s = 0; $waited_s < WAIT_MAX_S; $waited_s++) {
    $state = call('/api/texttoimage/jobs/', [
        'jobid' => (string) $job['jobid'],
        'signature' => $job['signature'],
    ]);
    if ($state['status'] === 'success') {
        echo $state['image_url'], "\n";
        exit(0);
    }
    if ($state['status'] === 'error') {
        fail('the image failed; it is not charged');
    }
    sleep(1);
}
fail('no image after ' . WAIT_MAX_S . ' seconds');

function call(string $path, array $body): array
{
    $curl = curl_init((getenv('GATEWAY_URL') ?: 'http://127.0.0.1:8080') . $path);
    curl_setopt_array($curl, [
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_HTTPHEADER => [
            'Content-Type: application/json',
            'Authorization: Bearer ' . getenv('GATEWAY_KEY'),
        ],
        CURLOPT_POSTFIELDS => json_encode($body),
    ]);
    $answer = curl_exec($curl);
    if ($answer === false) {
        fail(curl_error($curl));
    }
    $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    $decoded = json_decode($answer, true);
    if ($status != 200 || !is_array($decoded)) {
        fail($status . ': ' . ($decoded['error']['message'] ?? $answer));
    }
    return $decoded;
}

function fail(string $message): void
{
    fwrite(STDERR, $message . "\n");
    exit(1);
}
