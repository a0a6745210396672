# Knocks from PowerShell 5.1 or 7, for Windows without knock-agent. No test of the project has run it yet.
#
#   .\knock.ps1 -Settings gate.json [-Close]
#
# gate.json, readable by you only:
#   { "host": "gate.example.com", "http_port": 80, "https_port": 443, "http_path": "/...", "https_path": "/...",
#     "app": "ssh", "user": "alice", "key_http": "C:\\Users\\alice\\key1", "key_https": "C:\\Users\\alice\\key2",
#     "address": "-", "duration": "2h", "code": "" }
# key_http and key_https name files with the keys. With "user" step 1 sends a proof instead of the key. "code" is
# "http" or "https" where a one-time code is asked for. The certificate must be one that Windows trusts.
# Ends with 0 when it is open, 11 when step 2 stayed closed, 13 when it refused, 14 when it wants a code.
param([Parameter(Mandatory = $true)][string]$Settings, [switch]$Close)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12

$s = Get-Content -Raw -LiteralPath $Settings | ConvertFrom-Json
function Get-Setting([string]$name, $default) {
    if ($s.PSObject.Properties.Name -contains $name -and "$($s.$name)" -ne '') { $s.$name } else { $default }
}
function Get-Key([string]$path) { ([IO.File]::ReadAllText($path) -split "`r?`n")[0] }
function ConvertTo-Field([string]$text) { [Uri]::EscapeDataString($text) }
function ConvertTo-Hex([byte[]]$bytes) { -join ($bytes | ForEach-Object { $_.ToString('x2') }) }
function Get-Hmac([byte[]]$key, [string]$text) {
    $hmac = New-Object Security.Cryptography.HMACSHA256 (, $key)
    try { , $hmac.ComputeHash([Text.Encoding]::UTF8.GetBytes($text)) } finally { $hmac.Dispose() }
}

$user = Get-Setting 'user' ''
$code = Get-Setting 'code' ''
$token = ''
if ($code -ne '') { $token = (Read-Host 'one-time code').Trim() }

$form1 = 'app=' + (ConvertTo-Field $s.app)
$form2 = $form1 + '&access_key=' + (ConvertTo-Field (Get-Key $s.key_https))
if ($user -ne '') {
    $random = New-Object byte[] 16
    $source = [Security.Cryptography.RandomNumberGenerator]::Create()
    try { $source.GetBytes($random) } finally { $source.Dispose() }
    $nonce = ConvertTo-Hex $random
    $step = [long][Math]::Floor(([DateTime]::UtcNow - (New-Object DateTime 1970, 1, 1)).TotalSeconds / 30)
    $verifier = Get-Hmac ([Text.Encoding]::UTF8.GetBytes((Get-Key $s.key_http))) 'knock-agent key 1'
    $claim = "knock-agent proof 1`n$($s.app)`n$user`n$(Get-Setting 'address' '-')`n$step`n$nonce"
    $form1 += '&user=' + (ConvertTo-Field $user) + "&proof=$nonce." + (ConvertTo-Hex (Get-Hmac $verifier $claim))
    $form2 += '&user=' + (ConvertTo-Field $user)
} else {
    $form1 += '&access_key=' + (ConvertTo-Field (Get-Key $s.key_http))
}
if ($code -eq 'http') { $form1 += "&token=$token" }
if ($code -eq 'https') { $form2 += "&token=$token" }
if ($Close) { $form2 += '&action=close' }
elseif ((Get-Setting 'duration' '') -ne '') { $form2 += '&duration=' + (ConvertTo-Field $s.duration) }

# Step 1 over a plain socket, in one piece: it is never answered, and the gateway's kernel compares the first segment.
$name = $s.host
$shown = if ($name.Contains(':')) { "[$name]" } else { $name }
$request = "POST $($s.http_path) HTTP/1.1`r`nHost: $shown`r`nContent-Type: application/x-www-form-urlencoded`r`n" +
    "Content-Length: $($form1.Length)`r`nConnection: close`r`n`r`n$form1"
$bytes = [Text.Encoding]::ASCII.GetBytes($request)
$tcp = $null
try {
    $tcp = New-Object Net.Sockets.TcpClient($name, [int](Get-Setting 'http_port' 80))
    $tcp.NoDelay = $true
    $tcp.GetStream().Write($bytes, 0, $bytes.Length)
} catch {
    [Console]::Error.WriteLine("step 1: nothing answers at $name")
    exit 10
}
Start-Sleep -Milliseconds 300

$url = "https://${shown}:$(Get-Setting 'https_port' 443)$($s.https_path)"
try {
    $answer = Invoke-WebRequest -UseBasicParsing -Method Post -Uri $url -Body $form2 -TimeoutSec 8 `
        -ContentType 'application/x-www-form-urlencoded'
    if ($answer.StatusCode -eq 200) { exit 0 }
    $status = [int]$answer.StatusCode
} catch {
    $response = $null
    if ($_.Exception.PSObject.Properties.Name -contains 'Response') { $response = $_.Exception.Response }
    if ($null -eq $response) {
        [Console]::Error.WriteLine("step 2 did not open, or its certificate is not trusted: $($_.Exception.Message)")
        exit 11
    }
    $status = [int]$response.StatusCode
} finally {
    $tcp.Close()
}
[Console]::Error.WriteLine("step 2 answered with $status")
switch ($status) { 401 { exit 14 } 403 { exit 13 } 429 { exit 15 } default { exit 16 } }
